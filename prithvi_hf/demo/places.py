# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes of a place and dates that a visitor types, from the one catalog that who runs the demo has chosen."""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prithvi_hf.cli.fetch import fetch_frames


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

_PIXEL_METRES = {"hls": 30.0, "landsat-c2-l2": 30.0}
_SMALLEST_PIXEL = 10.0  # metres, of Sentinel-2 and of collections that are not known
_METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class Catalog:
    """Where scenes are searched for; the attributes are the arguments of `find_scenes` of the same names."""

    collection: tuple[str, ...]
    stac: str | None = None
    sign: str | None = None
    max_cloud: float | None = None

    def fetch(
        self, bbox: str, periods: str, image_processor: "PrithviImageProcessor", folder: Path, max_megapixels: float
    ) -> tuple[list[Path], list[str]]:
        """Download the clearest day of each period.

        Args:
            bbox: West, south, east and north in degrees, as they were typed.
            periods: A date or FROM/TO for each date of the model.
            image_processor: Of the model; its bands are fetched.
            folder: Where the files go.
            max_megapixels: Of a scene; larger places are refused before anybody is asked.

        Returns:
            The frames, folders of granules or files, and their dates.

        Raises:
            ValueError: If a text is not of the expected form, the place is too large or nothing is found.
            OSError: If the catalog cannot be reached, or a file is missing.
        """
        box, dates = read_bbox(bbox), re.findall(r"[^\s,;]+", periods)
        if len(dates) != (count := image_processor.num_frames):
            raise ValueError(
                f"Expected {count} months or spans of days, one for each date of the model, found "
                f"{len(dates)}. Write them with a space between, such as 2022-06 or 2022-06-01/2022-06-15."
            )
        height, width = self._measure(box)
        if height * width > max_megapixels * 1e6:
            raise ValueError(
                f"Expected a place of at most {max_megapixels:g} million pixels, found one of about {height:,.0f} x "
                f"{width:,.0f}. Give a smaller one."
            )
        options = argparse.Namespace(
            command="demo",
            bbox=box,
            collection=list(self.collection),
            stac=self.stac,
            sign=self.sign,
            max_cloud=self.max_cloud,
            fmask=(),
            fmask_rule="any",
            quiet=True,
        )
        fetched = fetch_frames(options, dates, image_processor, folder)
        if fetched is None:
            raise OSError("Expected all files of the scene, found some that the catalog does not give. Try it later.")
        frames, found, _ = fetched
        return [Path(frame) for frame in frames], found

    def _measure(self, box: Sequence[float]) -> tuple[float, float]:
        """Give about how many pixels a place is high and wide."""
        west, south, east, north = box
        pixel = min(_PIXEL_METRES.get(name, _SMALLEST_PIXEL) for name in self.collection)
        degrees = east - west if west < east else east - west + 360  # across the antimeridian
        metres = degrees * _METRES_PER_DEGREE * math.cos(math.radians((south + north) / 2))
        return (north - south) * _METRES_PER_DEGREE / pixel, metres / pixel


def read_bbox(text: str) -> list[float]:
    """Read west, south, east and north in degrees.

    Raises:
        ValueError: If they are not four numbers.
    """
    words = re.findall(r"[^\s,;]+", text)
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise ValueError(
            f"Expected west, south, east and north in degrees, such as 12.2 45.3 12.5 45.5, found {text!r}. Give "
            "four numbers."
        )
    return numbers
