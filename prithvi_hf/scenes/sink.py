# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where finished strips go: they are turned into products and committed beside the model, in a thread of its own."""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from prithvi_hf.scenes.engine import Strip
from prithvi_hf.scenes.products import ProductOptions, strip_products
from prithvi_hf.scenes.staging import Staging


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
        details = json.dumps({"bad_windows": strip.bad_windows, "thumbnail": strip.thumbnail is not None})
        arrays[_DETAILS] = np.frombuffer(details.encode(), dtype=np.uint8)
        self._staging.commit(strip.index, arrays)
        self.seconds += time.perf_counter() - clock
        self.count += 1


def read_bad_windows(staging: Staging) -> list[tuple[str, tuple[int, ...]]]:
    """List what could not be read of the scene.

    Args:
        staging: Where strips are kept; all must be done.

    Returns:
        File and (row, column, height, width) in the scene, each once: strips that touch may both name a block.
    """
    found = (window for index in range(staging.count) for window in _read_details(staging, index)["bad_windows"])
    return list(dict.fromkeys((name, tuple(window)) for name, window in found))


def read_thumbnail(staging: Staging) -> np.ndarray | None:
    """Read the small picture of the scene.

    Args:
        staging: Where strips are kept; all must be done.

    Returns:
        (3, h, w) float32 for `thumbnails.stretch_thumbnail`; None where the model's bands have no such colours.
    """
    if not _read_details(staging, 0)["thumbnail"]:
        return None
    rows = [staging.load(index, [_THUMBNAIL])[_THUMBNAIL] for index in range(staging.count)]
    return np.concatenate(rows, axis=1)


def _read_details(staging: Staging, index: int) -> dict[str, Any]:
    """Read what a strip says of itself."""
    return json.loads(staging.load(index, [_DETAILS])[_DETAILS].tobytes())


__all__ = ["StripSink", "read_bad_windows", "read_thumbnail"]
