# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bootstrap intervals of the metrics of an evaluation: chips, or groups of chips, are drawn again and again.

A metric of many chips depends on which ones were at hand. Drawing as many with replacement and computing the metric of
what was drawn, a thousand times, shows by how much (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
Drawn are chips and not pixels, which are not independent of each other; and whole groups where chips of an event or a
tile are not either. Everything is computed from the numbers of the chips, for all draws at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from prithvi_hf.training.chip_figures import ADDED_UP, Columns, read_columns, read_metadata


RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
FEW = 10
"""With fewer chips, or groups, an interval says little."""
_AT_ONCE = 100  # draws; what they need grows with the chips


def draw_weights(count: int, groups: Sequence[str | None] | None, resamples: int, seed: int) -> np.ndarray:
    """Draw with replacement: how often each chip is in each of the draws, (resamples, count) float64.

    With groups whole ones are drawn, as many as there are; a chip without a group is one by itself.
    """
    rng = np.random.default_rng(seed)
    names = [f"chip {place}" if group is None else f"group {group}" for place, group in enumerate(groups or ())]
    _, members = np.unique(names, return_inverse=True) if names else (None, np.arange(count))
    units = int(members.max()) + 1
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
    return drawn[:, members].astype(np.float64)


def weigh_metrics(task: str, columns: Columns, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of chips that count several times, or not at all, for many weightings at once.

    Args:
        task: one of `TASKS`.
        columns: the numbers of the chips, see `read_columns`.
        weights: (draws, chips).

    Returns:
        (draws,) of each mean, (draws, num_labels) of each `per_category_...`; NaN where a metric is not defined. Names
        and definitions are those of `compute_metrics`; the loss is not among them.
    """
    if task == "classification":
        return _weigh_labels(columns["logits"], columns["labels"], weights)
    sums = weights @ columns[ADDED_UP[task]]
    if task == "regression":
        count, error, absolute, square, total, squares = sums.T
        deviations = squares - _divide(total**2, count)
        r2 = 1 - _divide(square, np.where(deviations > 1e-12 * squares, deviations, 0))
        parts = {"mae": absolute, "bias": error}
        return {
            "rmse": np.sqrt(_divide(square, count)),
            **{name: _divide(part, count) for name, part in parts.items()},
            "r2": r2,
        }
    side = round(sums.shape[1] ** 0.5)
    matrices = sums.reshape(-1, side, side)
    hits, labelled, predicted = matrices.diagonal(axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    recall, precision = _divide(hits, labelled), _divide(hits, predicted)
    of_classes = {
        "iou": _divide(hits, labelled + predicted - hits),
        "accuracy": recall,
        "f1": _divide(2 * precision * recall, np.where(hits > 0, precision + recall, 0)),
        "precision": precision,
        "recall": recall,
    }
    if "boundary_union" in columns:
        either = weights @ columns["boundary_union"]
        of_classes["boundary_iou"] = _divide(weights @ columns["boundary_intersection"], either)
    return {
        "overall_accuracy": _divide(hits.sum(1), matrices.sum((1, 2))),
        **{f"mean_{name}": _mean(values) for name, values in of_classes.items()},
        **{f"per_category_{name}": values for name, values in of_classes.items()},
    }


def resample_metrics(
    task: str,
    columns: Columns,
    groups: Sequence[str | None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, np.ndarray]:
    """Compute the metrics of each draw; two models on the same chips have the same draws, so that these are pairs."""
    weights = draw_weights(len(columns["loss"]), groups, resamples, seed)
    parts = [weigh_metrics(task, columns, weights[at : at + _AT_ONCE]) for at in range(0, resamples, _AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def find_interval(draws: np.ndarray, level: float = LEVEL) -> Any:
    """Give the interval between the percentiles of draws (n,), or of each column of (n, k); None where none counts.

    Draws in which a metric is not defined are left out.
    """
    if draws.ndim > 1:
        return [find_interval(column, level) for column in draws.T]
    defined = draws[~np.isnan(draws)]
    edges = (50 * (1 - level), 50 * (1 + level))
    return np.percentile(defined, edges).tolist() if len(defined) else None


def bootstrap_interval(
    table: pa.Table, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = SEED
) -> dict[str, Any]:
    """Compute the interval of every metric of a table of chips.

    Args:
        table: one evaluation; where chips have groups, groups are drawn and not chips.
        resamples: number of draws.
        level: fraction of the draws between the ends.
        seed: of the draws.

    Returns:
        `[low, high]` of each mean and a list of them of each `per_category_...`, by name; None where a metric is not
        defined, and of a single chip or group, which cannot tell.
    """
    groups = table["group"].to_pylist()
    draws = resample_metrics(read_metadata(table)["task"], read_columns(table), groups, resamples, seed)
    found = {name: find_interval(values, level) for name, values in draws.items()}
    if count_units(table) == 1:
        return {name: [None] * draws[name].shape[1] if draws[name].ndim > 1 else None for name in found}
    return found


def describe_interval(table: pa.Table) -> str:
    """Say in one line how the intervals of a table were made, and whether they are to be trusted."""
    units, kind = count_units(table), "chips" if table["group"].null_count else "groups"
    text = f"95 % intervals by bootstrap over {units} {kind} ({RESAMPLES:,} draws, seed {SEED})"
    if units == 1:
        return f"no intervals: there is one {kind[:-1]}"
    return f"{text}; of fewer than {FEW} {kind} they say little" if units < FEW else text


def count_units(table: pa.Table) -> int:
    """Count what is drawn: groups, and chips without one."""
    return len(set(table["group"].drop_null().to_pylist())) + table["group"].null_count


def _divide(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Divide; NaN where there is nothing to divide by."""
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=np.asarray(wholes) != 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Give the mean over the classes (draws, num_labels) that are defined."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(1), defined.sum(1))


def _weigh_labels(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute `classification_metrics` of weighted images."""
    several = labels.shape[1] > 1
    counted = (labels >= 0).all(1)
    logits, labels, weights = logits[counted], labels[counted], weights[:, counted]
    if several:
        truth, found = labels > 0.5, logits > 0
    else:
        classes = np.arange(logits.shape[1])
        truth, found = labels == classes, logits.argmax(1)[:, None] == classes
    hits, labelled, predicted = (weights @ part.astype(float) for part in (truth & found, truth, found))
    f1 = _divide(2 * hits, labelled + predicted)
    metrics: dict[str, np.ndarray] = {
        "accuracy": _divide(weights @ (truth == found).all(1).astype(float), weights.sum(1)),
        "macro_f1": _mean(f1),
        "micro_f1": _divide(2 * hits.sum(1), (labelled + predicted).sum(1)),
        "per_category_f1": f1,
        "per_category_precision": _divide(hits, predicted),
        "per_category_recall": _divide(hits, labelled),
    }
    if several:
        pairs = zip(logits.T, truth.T, strict=True)
        precisions = np.stack([_weigh_average_precision(*pair, weights) for pair in pairs], axis=1)
        metrics |= {"mean_average_precision": _mean(precisions), "per_category_average_precision": precisions}
    return metrics


def _weigh_average_precision(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute `average_precision` of weighted images, (draws,)."""
    order = np.argsort(-scores, kind="stable")
    scores, weights = scores[order], weights[:, order]
    ends = np.append(scores[1:] != scores[:-1], True)  # the last image of each score
    hits = (weights * positives[order]).cumsum(1)[:, ends]
    precision = np.nan_to_num(_divide(hits, weights.cumsum(1)[:, ends]))
    return _divide((np.diff(hits, prepend=0) * precision).sum(1), hits[:, -1])


def name_intervals(prefix: str, intervals: Mapping[str, Any]) -> dict[str, Any]:
    """Name intervals as results of a run: `test_mean_iou_interval`."""
    return {f"{prefix}_{name}_interval": interval for name, interval in intervals.items()}
