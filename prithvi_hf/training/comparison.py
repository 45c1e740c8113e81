# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A paired comparison of two models on the same chips, from their figures of each chip, with maps of differences.

What makes a chip hard is hard for both models, so that the difference of two metrics is far better known than either
of them: both are computed of the same draws of chips, and the interval is that of their differences.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from prithvi_hf.data.builders.files import show_some
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.models.prithvi.segmentation_map_prithvi import NODATA_CLASS
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.quicklook import draw_pictures, make_color_scale, paint_classes, paint_values
from prithvi_hf.training.chip_figures import compute_metrics, find_splits, group_figures, read_columns, read_metadata
from prithvi_hf.training.evaluation import format_figure
from prithvi_hf.training.intervals import (
    FEW,
    LEVEL,
    RESAMPLES,
    SEED,
    count_units,
    find_interval,
    resample_metrics,
)
from prithvi_hf.training.recipe_options import CLASS_FIGURES, CLASS_TITLES
from prithvi_hf.training.sample_pictures import make_row, paint_differences, pick_samples, predict_map
from prithvi_hf.training.training_args import LOWER_IS_BETTER, TASK_METRICS


NAMES = ("a", "b")
_CHIP_METRIC = {"segmentation": "mean_iou", "regression": "rmse", "classification": "loss"}
# Where two maps of classes differ: B alone is right, A alone is, neither is; elsewhere they agree.
_COLORS = {"b": (31, 111, 180, 255), "a": (230, 126, 34, 255), "neither": (90, 90, 90, 255)}
_AGREEMENT = (222, 222, 218, 255)


def pair_tables(a: pa.Table, b: pa.Table, splits: Sequence[str] | None = None) -> dict[str, tuple[pa.Table, pa.Table]]:
    """Find the splits that both models were measured on, with the chips of the second in the order of the first.

    Raises:
        ValueError: the models have other tasks or classes, no split is of both, or the chips or their labels differ.
    """
    about = [read_metadata(table) for table in (a, b)]
    for name in ("task", "class_names"):
        if about[0][name] != about[1][name]:
            raise ValueError(
                f"Expected two models of one {name}, found {about[0][name]} and {about[1][name]}. Compare models that "
                "were made for the same labels."
            )
    found = [{part["split"][0].as_py(): part for part in find_splits(table).values()} for table in (a, b)]
    wanted = list(splits or (name for name in found[0] if name in found[1]))
    missing = [name for name in wanted if name not in found[0] or name not in found[1]]
    if missing or not wanted:
        raise ValueError(
            f"Expected figures of both models for {', '.join(missing) or 'one split at least'}, found "
            f"{', '.join(found[0])} of A and {', '.join(found[1])} of B. Name a split of both with --splits, or "
            "evaluate both with --config."
        )
    pairs = {}
    for split in wanted:
        first, other = found[0][split], found[1][split]
        for name, part in zip("AB", (first, other), strict=True):
            twice = len(part) - len(part["chip"].unique())
            if twice or "label_digest" not in part.column_names:
                problem = f"{twice} chips that are there twice" if twice else "no label_digest, which tells the labels"
                raise ValueError(
                    f"{split}: expected figures of {name} with each chip once and the digest of its labels, found "
                    f"{problem}. Evaluate both on the same data with --config."
                )
        places = {chip: place for place, chip in enumerate(other["chip"].to_pylist())}
        chips = first["chip"].to_pylist()
        alone = [[chip for chip in chips if chip not in places], sorted(set(places) - set(chips))]
        if any(alone):
            raise ValueError(
                f"{split}: expected the same chips for both models, found {len(alone[0])} of A alone "
                f"({show_some(alone[0]) or '-'}) and {len(alone[1])} of B alone ({show_some(alone[1]) or '-'}). "
                "Evaluate both on the same data with --config."
            )
        other = other.take(pa.array([places[chip] for chip in chips], pa.int64()))
        digests = [part["label_digest"].to_numpy() for part in (first, other)]
        changed = [chip for chip, is_other in zip(chips, digests[0] != digests[1], strict=True) if is_other]
        if changed:
            raise ValueError(
                f"{split}: expected the same labels for both models, found others in {len(changed)} of {len(chips)} "
                f"chips: {show_some(changed)}. Evaluate both on the same data with --config."
            )
        pairs[split] = first, other
    return pairs


def compare_tables(a: pa.Table, b: pa.Table, splits: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare two models by the figures of their chips.

    Args:
        a: figures of the chips of the first model, see `chip_figures`.
        b: those of the second.
        splits: which to compare; all that both have by default.

    Returns:
        What `comparison.json` holds: `a` and `b` (what is known of the models), `task`, `class_names`, how the
        intervals were made, and by split `chips`, `units` (what was drawn), `metrics` (by name `a`, `b`, `difference`,
        which is B - A, its `interval`, and `b_better`, the fraction of the draws in which B is better), `groups`, and
        `largest_differences`, all chips in the order of how much the models differ there.

    Raises:
        ValueError: see [`pair_tables`].
    """
    about = [read_metadata(table) for table in (a, b)]
    task = about[0]["task"]
    result: dict[str, Any] = {
        **{name: {key: one[key] for key in ("model", "model_digest")} for name, one in zip(NAMES, about, strict=True)},
        **{"task": task, "class_names": about[0]["class_names"]},
        **{"resamples": RESAMPLES, "seed": SEED, "level": LEVEL, "splits": {}},
    }
    for split, pair in pair_tables(a, b, splits).items():
        columns = [read_columns(part) for part in pair]
        groups = next((part for part in pair if part["group"].null_count < len(part)), pair[0])["group"].to_pylist()
        pair = tuple(part.set_column(part.column_names.index("group"), "group", [groups]) for part in pair)
        metrics = [compute_metrics(task, one) for one in columns]
        draws = [resample_metrics(task, one, groups) for one in columns]
        units = count_units(pair[0])
        compared = {}
        for name in draws[0]:
            if name not in draws[1]:  # B was measured by another version
                continue
            differences = draws[1][name] - draws[0][name]
            compared[name] = _compare_metric(name, metrics[0][name], metrics[1][name], differences, units)
        by_group = [group_figures(part) for part in pair]
        result["splits"][split] = {
            "chips": len(pair[0]),
            "units": units,
            "metrics": compared,
            "groups": {
                group: {
                    "chips": figures["chips"],
                    **{
                        name: _subtract(figures[name], by_group[1][group][name])
                        for name in TASK_METRICS[task]
                        if name in figures and name in by_group[1][group]
                    },
                }
                for group, figures in by_group[0].items()
            },
            "largest_differences": _rank_chips(task, pair, columns),
        }
    return result


def format_comparison(result: dict[str, Any]) -> str:
    """Format a comparison for people: a table for each split, and what can be said of the first metric."""
    task, labels = result["task"], result["class_names"]
    own = CLASS_FIGURES.get(task, "")
    scale = 100 if own else 1
    lines = [f"{name.upper()}: {result[name]['model']}" for name in NAMES]
    for split, found in result["splits"].items():
        rows = {name: found["metrics"][name] for name in TASK_METRICS[task] if name in found["metrics"]}
        classes = found["metrics"].get(f"per_category_{own}", [])
        rows |= {f"{CLASS_TITLES[own]} of {label}": row for label, row in zip(labels, classes, strict=bool(classes))}
        width = max(map(len, rows))
        lines += [
            f"{split}: {found['chips']} chip{'' if found['chips'] == 1 else 's'}",
            f"  {'':<{width}}  {'A':>8}  {'B':>8}  {'B - A':>8}  {'95 % interval':>18}  B better",
        ]
        for name, row in rows.items():
            cells = [_scale(row[key], scale) for key in ("a", "b", "difference")]
            texts = [format_figure(cell, task) for cell in cells]
            texts[2] = f"+{texts[2]}" if cells[2] is not None and cells[2] > 0 else texts[2]
            ends = (
                "-"
                if row["interval"] is None
                else " to ".join(format_figure(scale * end, task) for end in row["interval"])
            )
            share = "-" if row["b_better"] is None else f"{row['b_better']:.0%}"
            lines.append(f"  {name:<{width}}  {'  '.join(f'{text:>8}' for text in texts)}  {ends:>18}  {share:>8}")
        for group, figures in found["groups"].items():
            name = next(iter(TASK_METRICS[task]))
            texts = [format_figure(_scale(figures[name][key], scale), task) for key in ("a", "b", "difference")]
            lines.append(f"  {group} ({figures['chips']}): {name} {texts[0]} and {texts[1]}, B - A {texts[2]}")
        lines.append(f"  {describe_difference(result, split)}")
    return "\n".join(lines)


def describe_difference(result: dict[str, Any], split: str) -> str:
    """Say in one sentence which model is better on a split by the first metric, and whether that can be told."""
    task, found = result["task"], result["splits"][split]
    name = next(iter(TASK_METRICS[task]))
    row = found["metrics"][name]
    if row["difference"] is None or row["interval"] is None:
        return f"nothing can be said of {name}: it is not defined, or there is one chip or group"
    scale, unit = (100, " points") if task in CLASS_FIGURES else (1, "")
    is_lower = name in LOWER_IS_BETTER
    winner = "B" if (row["difference"] > 0) != is_lower else "A"
    ends = [abs(scale) * end for end in row["interval"]]
    if row["difference"] < 0:  # said of the size of the difference
        ends = [-end for end in reversed(ends)]
    size = format_figure(abs(scale * row["difference"]), task)
    verdict = "distinguishable" if ends[0] > 0 else "not distinguishable"
    text = (
        f"{winner} is better by {size}{unit} of {name}, 95 % interval {format_figure(ends[0], task)} to "
        f"{format_figure(ends[1], task)}: {verdict}"
    )
    few = f"; with {found['units']} chips or groups drawn, fewer than {FEW}, the interval says little"
    return text + few * (found["units"] < FEW)


def plot_differences(
    models: Sequence[Any],
    processors: Sequence[PrithviImageProcessor],
    dataset: Dataset,
    places: Sequence[int],
    path: Path,
    window: int | None = None,
    overlap: float = 0.5,
) -> None:
    """Draw chips with their labels, the maps of both models and where they differ, as PNG.

    Of classes it is blue where B alone is right, orange where A alone is, and grey where neither is; of values blue
    where B is closer and red where A is.
    """
    task, id2label = models[0].task, dict(sorted(models[0].config.id2label.items()))
    palette = class_palette(len(id2label), models[0].config.class_colors, [*id2label.values()])
    samples = [
        [
            (scene, targets, predict_map(model, scene, window, overlap))
            for _, scene, targets in pick_samples(model, processor, dataset, places)
        ]
        for model, processor in zip(models, processors, strict=True)
    ]
    rows, present = [], set()
    scale = None if task == "segmentation" else make_color_scale(np.concatenate([s[1].ravel() for s in samples[0]]))
    for (scene, targets, one), (_, _, two) in zip(*samples, strict=True):
        if scale is None:
            labels = np.where(targets < 0, NODATA_CLASS, targets).astype(np.uint8)
            maps = {"label": labels, "A": one, "B": two}
            painted = {name: paint_classes(part, palette) for name, part in maps.items()}
            painted["right: B alone blue, A alone orange"] = paint_winners(labels, one, two)
            present |= {int(value) for part in maps.values() for value in np.unique(part)}
        else:
            values = {"target": targets, "A": one, "B": two}
            painted = {name: paint_values(part, scale) for name, part in values.items()}
            painted["closer: B blue, A red"] = paint_differences(abs(two - targets) - abs(one - targets), scale)
        rows.append(make_row(scene, painted))
    colors: dict[str, Any] = {"id2label": id2label, "palette": palette, "present": present}
    if scale is not None:
        colorbar = (Quantity.of(models[0].config).title, scale)
        colors = {"id2label": {}, "palette": [], "present": (), "colorbar": colorbar}
    draw_pictures(path, rows, nodata_label="no data or ignored label", panel_inches=4.0, **colors)


def paint_winners(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Paint (H, W, 4) which of two maps of classes (H, W) is right where they differ; 255 in labels is transparent."""
    painted = np.empty((*labels.shape, 4), np.uint8)
    painted[:] = _AGREEMENT
    differ = a != b
    for name, where in (("neither", differ), ("a", differ & (a == labels)), ("b", differ & (b == labels))):
        painted[where] = _COLORS[name]
    painted[labels == NODATA_CLASS] = 0
    return painted


def _compare_metric(name: str, a: Any, b: Any, differences: np.ndarray, units: int) -> Any:
    """Compare one metric, or each of a list: both values, the difference, its interval, how often B is better."""
    if differences.ndim > 1:
        return [_compare_metric(name, *one, units) for one in zip(a, b, differences.T, strict=True)]
    defined = differences[~np.isnan(differences)]
    better = None
    if len(defined) and name != "bias":  # of which neither direction is better
        better = float((defined < 0 if name in LOWER_IS_BETTER else defined > 0).mean())
    known = units > 1 and len(defined) > 0
    interval = find_interval(differences) if known else None
    return {**_subtract(a, b), "interval": interval, "b_better": better if known else None}


def _subtract(a: float | None, b: float | None) -> dict[str, float | None]:
    a, b = (None if value is None or not np.isfinite(value) else value for value in (a, b))
    return {"a": a, "b": b, "difference": None if a is None or b is None else b - a}


def _scale(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def _rank_chips(task: str, pair: Sequence[pa.Table], columns: Sequence[Any]) -> list[dict[str, Any]]:
    """List the chips by how much the models differ on them, `place` being that in the split."""
    name, chips = _CHIP_METRIC[task], []
    rows = zip(pair[0]["chip"].to_pylist(), pair[0]["group"].to_pylist(), strict=True)
    for place, (chip, group) in enumerate(rows):
        parts = [{key: values[[place]] for key, values in one.items()} for one in columns]
        values = _subtract(*(compute_metrics(task, part)[name] for part in parts))
        chips.append({"chip": chip, "group": group, "place": place, "metric": name, **values})
    return sorted(chips, key=lambda one: -abs(one["difference"] or 0))
