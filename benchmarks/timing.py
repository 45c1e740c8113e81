# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Timing that noise disturbs little: alternating repetitions and medians."""

import statistics
import time
from collections.abc import Callable, Mapping


def median_seconds(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time contenders in turns, so that what slows the machine down for a while slows all of them.

    Args:
        contenders (`Mapping[str, Callable[[], object]]`): What to time, by name.
        repeats (`int`): Timed calls of each, after one that is not timed.

    Returns:
        `dict[str, float]`: Median seconds of one call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def comparison(what: str, ours: float, alternative: float, name: str) -> dict[str, float | str]:
    """One row of the table.

    Args:
        what (`str`): What was done.
        ours (`float`): Our seconds.
        alternative (`float`): Those of the alternative.
        name (`str`): What the alternative is.

    Returns:
        `dict`: `what`, `ours_ms`, `alternative_ms`, `alternative` and `ratio`.
    """
    return {
        "what": what,
        "ours_ms": 1000 * ours,
        "alternative_ms": 1000 * alternative,
        "alternative": name,
        "ratio": alternative / ours,
    }
