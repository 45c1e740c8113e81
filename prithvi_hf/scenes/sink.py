# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where finished strips go: they are turned into products and committed beside the model, in a thread of its own."""

import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from transformers.utils import logging

from prithvi_hf.outputs.products import ProductOptions, strip_products
from prithvi_hf.outputs.staging import Staging
from prithvi_hf.scenes.engine import Strip
from prithvi_hf.scenes.rows import BadWindow


logger = logging.get_logger(__name__)

_THUMBNAIL, _DETAILS = "thumbnail", "details"


class StripSink:
    """Commits strips while the model makes the next one.

    It holds one strip at a time: a second one waits in `put`. Leaving the `with` block waits for the last strip.

    Args:
        staging: Where strips are kept.
        options: Which products are made of them.

    Attributes:
        seconds: Time spent on products and on writing.
        count: Strips committed.
    """

    def __init__(self, staging: Staging, options: ProductOptions) -> None:
        self._staging, self._options = staging, options
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="strip writer")
        self._pending: Future[None] | None = None
        self.seconds = 0.0
        self.count = 0

    def __enter__(self) -> "StripSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown()  # waits: a strip that was handed over before an error is still kept

    def put(self, strip: Strip) -> None:
        """Hand a strip over.

        Args:
            strip: The strip; drop other references to it, it is large.

        Raises:
            Exception: What went wrong with the strip before this one, for example `OSError` when the disk is full.
        """
        self._wait()
        self._pending = self._thread.submit(self._commit, strip)

    def _wait(self) -> None:
        """Wait for the strip at hand and raise its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _commit(self, strip: Strip) -> None:
        """Make the products of a strip and keep them."""
        clock = time.perf_counter()
        arrays = strip_products(strip.logits, strip.nodata, self._options)
        if strip.thumbnail is not None:
            arrays[_THUMBNAIL] = strip.thumbnail
        details = {
            "bad_windows": strip.bad_windows,
            "frame_nodata": strip.frame_nodata,
            "thumbnail": strip.thumbnail is not None,
        }
        arrays[_DETAILS] = np.frombuffer(json.dumps(details).encode(), dtype=np.uint8)
        self._staging.commit(strip.index, arrays)
        self.seconds += time.perf_counter() - clock
        self.count += 1


def read_bad_windows(staging: Staging) -> list[BadWindow]:
    """List what could not be read of the scene.

    Args:
        staging: Where strips are kept; all must be done.

    Returns:
        File and (row, column, height, width) in the scene, sorted; windows one below the other are one, since a block
        that reaches into several strips is named by each.
    """
    found = (window for index in range(staging.count) for window in _read_details(staging, index)["bad_windows"])
    return join_windows((name, tuple(window)) for name, window in found)


def join_windows(windows: Iterable[BadWindow]) -> list[BadWindow]:
    """Join windows of a file that lie one below the other.

    Args:
        windows: File and (row, column, height, width), in any order.

    Returns:
        Those that are left, by file and place.
    """
    columns: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for name, (row, column, height, width) in sorted(set(windows)):
        parts = columns.setdefault((name, column, width), [])
        if parts and row <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(parts[-1][1], row + height))
        else:
            parts.append((row, row + height))
    return sorted(
        (name, (row, column, stop - row, width))
        for (name, column, width), parts in columns.items()
        for row, stop in parts
    )


def read_frame_shares(staging: Staging, pixels: int, names: Sequence[str]) -> list[float]:
    """Find how much of the scene each frame lacks, and warn of frames without any data beside others with some.

    Args:
        staging: Where strips are kept; all must be done.
        pixels: Of the scene.
        names: What the frames are called; of another number where one file stacks several dates.

    Returns:
        One share a date, 0 to 1.
    """
    counts = np.sum([_read_details(staging, index)["frame_nodata"] for index in range(staging.count)], axis=0)
    if len(names) != len(counts):
        names = [f"date {number} of {', '.join(names)}" for number in range(1, len(counts) + 1)]
    if not (counts == pixels).all():
        for name in (name for name, count in zip(names, counts, strict=True) if count == pixels):
            logger.warning(
                f"{name}: expected data in some part of the scene, found none in any pixel: the map comes from the "
                "other dates alone, with this one filled. Check the file, or choose another date."
            )
    return [int(count) / pixels for count in counts]


def read_thumbnail(staging: Staging) -> np.ndarray | None:
    """Read the small picture of the scene.

    Args:
        staging: Where strips are kept; all must be done.

    Returns:
        (3, h, w) float32 for `stretch_colors`; None where the model's bands have no such colours.
    """
    if not _read_details(staging, 0)["thumbnail"]:
        return None
    rows = [staging.load(index, [_THUMBNAIL])[_THUMBNAIL] for index in range(staging.count)]
    return np.concatenate(rows, axis=1)


def _read_details(staging: Staging, index: int) -> dict[str, Any]:
    """Read what a strip says of itself."""
    return json.loads(staging.load(index, [_DETAILS])[_DETAILS].tobytes())


__all__ = ["StripSink", "join_windows", "read_bad_windows", "read_frame_shares", "read_thumbnail"]
