# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sen1Floods11, hand-labelled: Sentinel-2 chips of eleven flood events with water masks."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from datasets import BuilderConfig, DatasetInfo, Features, Value
from datasets.utils import logging

from prithvi_hf.data.builders.base import AnyDownloadManager, ChipBuilder, make_features
from prithvi_hf.data.builders.download import check_bucket_digests, explain_bucket_errors
from prithvi_hf.data.builders.files import (
    ChipRow,
    check_ids,
    index_by_chip,
    index_by_name,
    list_files,
    read_day,
    read_ids,
    read_text,
)


logger = logging.get_logger(__name__)

SEN1FLOODS11_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    *("NIR_BROAD", "NIR_NARROW", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2"),
)
"""Names of the 13 bands of an image, in file order (B1 to B8, B8A, B9 to B12)."""
SEN1FLOODS11_CLASSES = ("no water", "water")
"""Class names by mask value; mask value -1 is nodata."""
SEN1FLOODS11_CLASS_COLORS = ("#d9d2bf", "#1f6fb4")
"""Colours of the classes, for maps."""

_IMAGE_SUFFIX, _MASK_SUFFIX = "_S2Hand.tif", "_LabelHand.tif"
_LIST_SUFFIXES = ("_S1Hand.tif", _IMAGE_SUFFIX, _MASK_SUFFIX, ".tif", "_S1Hand", "_S2Hand", "_LabelHand")
_LISTS = {"train": "train", "validation": "valid", "test": "test", "bolivia": "bolivia"}
_METADATA = "Sen1Floods11_Metadata.geojson"
_WANTED = re.compile(
    r".+_(S2Hand|LabelHand)\.tif|flood_(train|valid|test|bolivia)_data\.(csv|txt)|Sen1Floods11_Metadata\.geojson"
)
_REMOTE = {
    "image": "v1.1/data/flood_events/HandLabeled/S2Hand/{}" + _IMAGE_SUFFIX,
    "mask": "v1.1/data/flood_events/HandLabeled/LabelHand/{}" + _MASK_SUFFIX,
}
# Chips of one event carry another name than the event.
_EVENT_NAMES = {"mekong": "cambodia"}

_DESCRIPTION = (
    "446 chips of 512 x 512 pixels at 10 m from eleven flood events, Bolivia held out as a split of its own: "
    "Sentinel-2 Level-1C images of 13 bands (top-of-atmosphere reflectance x 10000, int16) with hand-drawn masks of "
    "surface water (-1 nodata, 0 no water, 1 water)."
)
_CITATION = """@InProceedings{Bonafilia_2020_CVPR_Workshops,
  author = {Bonafilia, Derrick and Tellman, Beth and Anderson, Tyler and Issenberg, Erica},
  title = {Sen1Floods11: a georeferenced dataset to train and test deep learning flood algorithms for Sentinel-1},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR) Workshops},
  year = {2020},
  pages = {210--211}
}"""
_LICENSE = (
    "The publishers state no licence with the data; the imagery is modified Copernicus Sentinel data, free and open "
    "under the Copernicus terms. See the homepage."
)


@dataclass
class Sen1Floods11Config(BuilderConfig):
    """Options of [`Sen1Floods11`].

    Args:
        base_url (`str`, *optional*): where to download from without `data_dir`: the folder that holds `v1.1`.
    """

    base_url: str = "https://storage.googleapis.com/sen1floods11"


class Sen1Floods11(ChipBuilder):
    """Builder of the hand-labelled part of Sen1Floods11 with its official splits.

    `data_dir` is the folder that holds `v1.1`, or `v1.1`, or any copy in which the files keep their names: images
    `*_S2Hand.tif`, masks `*_LabelHand.tif`, lists `flood_{train,valid,test,bolivia}_data.csv` or `.txt`. Splits whose
    list is missing are not offered. Without `data_dir` the chips (about 3 GB) are downloaded file by file: an
    interrupted download continues with the files that are missing, and each is compared with the MD5 digest that the
    bucket states. A stream reads chips from the bucket as they are asked for, and compares nothing.

    Rows: `image` (13 bands, named by `SEN1FLOODS11_BANDS`), `mask`, `id` ("Ghana_103272"), and from the event metadata
    `date` (ISO day of the Sentinel-2 image) and `country` (ISO code of three letters), None where they give none.
    """

    DATASET_NAME: ClassVar[str] = "sen1floods11"
    IMAGE_NAME: ClassVar[re.Pattern[str]] = re.compile(r".+_S2Hand\.tif")
    BUILDER_CONFIG_CLASS = Sen1Floods11Config
    VERSION = "1.1.0"
    LICENSE = _LICENSE

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            homepage="https://github.com/cloudtostreet/Sen1Floods11",
            license=_LICENSE,
            features=Features(
                {
                    **make_features(SEN1FLOODS11_BANDS, SEN1FLOODS11_CLASSES, SEN1FLOODS11_CLASS_COLORS),
                    "country": Value("string"),
                }
            ),
        )

    def _make_rows(self, dl_manager: AnyDownloadManager) -> dict[str, list[ChipRow]]:
        if self.config.data_dir is not None:
            return self._make_folder_rows(self.config.data_dir)
        base = self.config.base_url.rstrip("/")
        with explain_bucket_errors("the files of Sen1Floods11 (v1.1)", base):
            folder = f"{base}/v1.1/splits/flood_handlabeled"
            lists = {split: f"{folder}/flood_{name}_data.csv" for split, name in _LISTS.items()}
            texts = dl_manager.download({**lists, _METADATA: f"{base}/v1.1/{_METADATA}"})
            events = _read_events(texts.pop(_METADATA))
            ids = {split: read_ids(path, _LIST_SUFFIXES) for split, path in texts.items()}
            chips = [chip for split in ids.values() for chip in split]
            urls = {kind: {chip: f"{base}/{place.format(chip)}" for chip in chips} for kind, place in _REMOTE.items()}
            files = dl_manager.download(urls)
            if not dl_manager.is_streaming:
                check_bucket_digests({urls[kind][chip]: files[kind][chip] for kind in urls for chip in chips})
        return {split: _pair(chips, files["image"], files["mask"], events) for split, chips in ids.items()}

    def _make_folder_rows(self, data_dir: str) -> dict[str, list[ChipRow]]:
        paths = index_by_name(list_files(data_dir), _WANTED, data_dir)
        lists = {
            split: paths[name]
            for split, stem in _LISTS.items()
            for name in (f"flood_{stem}_data.txt", f"flood_{stem}_data.csv")  # a csv is preferred
            if name in paths
        }
        if not lists:
            raise FileNotFoundError(
                f"{data_dir}: expected the official layout of Sen1Floods11 with lists such as flood_train_data.csv, "
                "found none. Point data_dir at the folder that holds v1.1, or use geotiff_folder."
            )
        images, masks = (index_by_chip(paths, suffix) for suffix in (_IMAGE_SUFFIX, _MASK_SUFFIX))
        if _METADATA not in paths:
            logger.warning(f"Sen1Floods11: no {_METADATA} found beside the chips, so dates and countries are None.")
        events = _read_events(paths[_METADATA]) if _METADATA in paths else {}
        rows = {}
        for split, path in lists.items():
            ids = read_ids(path, _LIST_SUFFIXES)
            check_ids(ids, {"image": images, "mask": masks}, f"split {split} ({path})")
            rows[split] = _pair(ids, images, masks, events)
        return rows


def _pair(
    ids: list[str], images: Mapping[str, str], masks: Mapping[str, str], events: Mapping[str, dict[str, str | None]]
) -> list[ChipRow]:
    """Make rows of chips; the part of an id before its number is the event, whose date and country they share."""
    rows: list[ChipRow] = []
    for chip in ids:
        name = _simplify_event(chip.rpartition("_")[0])
        event = events.get(_EVENT_NAMES.get(name, name), {})
        row = {"image": images[chip], "mask": masks[chip], "id": chip}
        rows.append({**row, "date": event.get("date"), "country": event.get("country")})  # type: ignore[typeddict-item]
    return rows


def _simplify_event(name: str) -> str:
    """Write the name of an event in the form that metadata and ids share."""
    return re.sub(r"[^a-z]", "", name.lower())


def _read_events(path: str) -> dict[str, dict[str, str | None]]:
    """Read the day of the Sentinel-2 image of each event, as ISO text, and the country."""
    try:
        events = [feature["properties"] for feature in json.loads(read_text(path))["features"]]
        return {
            _simplify_event(event["location"]): {
                "date": read_day(event["s2_date"], path) if event.get("s2_date") else None,
                "country": event.get("ISO_CC"),
            }
            for event in events
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected features with properties location and s2_date (YYYY/MM/DD), found {error!r}. "
            f"Download {_METADATA} again, or remove it to go without dates and countries."
        ) from error
