# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What several trainings of one recipe come to: mean, spread and interquartile mean of each metric of each split."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.evaluation import format_figure
from prithvi_hf.training.model_card import escape_code, escape_text, list_versions
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_options import CLASS_FIGURES, CLASS_TITLES
from prithvi_hf.training.training_args import TASK_METRICS


SUMMARY = "summary.json"
# What an evaluation measures of itself and not of the model.
_NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
_COLUMNS = {"mean": "mean", "std": "std", "interquartile_mean": "IQM", "minimum": "lowest", "maximum": "highest"}

HOW_COMPUTED = (
    "std is the standard deviation between runs (n - 1 in the denominator). IQM, the interquartile mean, is the mean "
    "of the middle half of the runs (Agarwal et al. 2021): a quarter of their weight is cut at each end, which of "
    "three runs is three quarters of the lowest and of the highest; one and two runs keep their mean."
)


def interquartile_mean(values: Sequence[float]) -> float:
    """Average the middle half of some values; one that a quartile cuts through counts by the part inside.

    Of a number of values that four divides it is `scipy.stats.trim_mean(values, 0.25)`.

    Args:
        values: At least one number.

    Returns:
        The mean of what is left when a quarter of the weight is cut at each end.
    """
    ordered, place = np.sort(np.asarray(values, dtype=np.float64)), np.arange(len(values))
    low, high = len(values) / 4, 3 * len(values) / 4
    weights = (np.minimum(place + 1, high) - np.maximum(place, low)).clip(min=0)
    return float(weights @ ordered / weights.sum())


def describe_values(values: Sequence[float | None]) -> dict[str, Any]:
    """Describe the values of one metric, one of each run, in their order; None is left out of what is computed.

    Returns:
        `values`, `mean`, `std` (None of a single one), `interquartile_mean`, `minimum` and `maximum`.
    """
    known = [value for value in values if value is not None]
    if not known:
        return {"values": list(values), **dict.fromkeys(_COLUMNS)}
    return {
        "values": list(values),
        "mean": float(np.mean(known)),
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "interquartile_mean": interquartile_mean(known),
        "minimum": min(known),
        "maximum": max(known),
    }


def collect_metrics(results: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Sort the figures of `all_results.json` by split: metrics by name, numbers or lists of one for each class.

    Args:
        results: The content of `all_results.json`.
        prefixes: Name of the split of each prefix.

    Returns:
        The metrics of each split, without what an evaluation measures of its own speed.
    """
    found: dict[str, dict[str, Any]] = {split: {} for split in prefixes.values()}
    for key, value in results.items():
        # Of the splits test and test_north the longer name that fits is meant.
        prefix = max((name for name in prefixes if key.startswith(f"{name}_")), key=len, default=None)
        name = "" if prefix is None else key.removeprefix(f"{prefix}_")
        numbers = value if isinstance(value, list) else [value]
        is_metric = all(number is None or type(number) in (int, float) for number in numbers)
        if prefix is not None and is_metric and name not in _NOT_METRICS and not name.endswith("_interval"):
            finite = [number if number is not None and math.isfinite(number) else None for number in numbers]
            found[prefixes[prefix]][name] = finite if isinstance(value, list) else finite[0]
    return found


def summarize_runs(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Describe every metric of every split over some runs.

    Args:
        runs: Of each run the metrics of each split.

    Returns:
        Of each split and metric what [`describe_values`] gives; of a list of one figure for each class, a list.
    """
    summary: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys(split for run in runs.values() for split in run):
        own = [run.get(split, {}) for run in runs.values()]
        summary[split] = {}
        for name in dict.fromkeys(name for metrics in own for name in metrics):
            values = [metrics.get(name) for metrics in own]
            lists = [value for value in values if isinstance(value, list)]
            if not lists:
                summary[split][name] = describe_values(values)
                continue
            per_class = [value if isinstance(value, list) else [None] * len(lists[0]) for value in values]
            summary[split][name] = [describe_values(column) for column in zip(*per_class, strict=True)]
    return summary


def list_rows(figures: Mapping[str, Any], task: str, class_names: Sequence[str]) -> dict[str, Any]:
    """List what a table shows of some figures, by title: the single ones, and one of each class."""
    rows = {title: figures[name] for name, title in TASK_METRICS[task].items() if name in figures}
    own = CLASS_FIGURES.get(task)
    if own is not None:
        of_classes = zip(class_names, figures.get(f"per_category_{own}", []), strict=False)
        rows |= {f"{CLASS_TITLES[own]} of {name}": value for name, value in of_classes}
    return rows


def tabulate_summary(
    summary: Mapping[str, Mapping[str, Any]], task: str, class_names: Sequence[str]
) -> dict[str, Any]:
    """Make rows of a table of each split: the title of a metric, and mean, std, IQM, lowest and highest as text."""
    scale, tables = 100 if task in CLASS_FIGURES else 1, dict[str, dict[str, list[str]]]()
    for split, metrics in summary.items():
        tables[split] = {
            title: [format_figure(None if row[key] is None else scale * row[key], task) for key in _COLUMNS]
            for title, row in list_rows(metrics, task, class_names).items()
        }
    return tables


def format_summary(summary: Mapping[str, Mapping[str, Any]], task: str, class_names: Sequence[str], runs: int) -> str:
    """Format the figures of some runs for people, fractions in percent."""
    lines = []
    for split, rows in tabulate_summary(summary, task, class_names).items():
        width = max(map(len, rows), default=0)
        lines.append(f"{split}: {runs} run{'' if runs == 1 else 's'}")
        lines.append(f"  {'':<{width}}  " + "  ".join(f"{title:>8}" for title in _COLUMNS.values()))
        lines += [f"  {title:<{width}}  " + "  ".join(f"{cell:>8}" for cell in row) for title, row in rows.items()]
    return "\n".join(lines)


def plot_summary(summary: Mapping[str, Mapping[str, Any]], task: str, runs: Sequence[str], path: Path) -> None:
    """Draw the single figures of each split, a dot for each run and a line at their mean, as PNG."""
    from prithvi_hf.outputs.figures import make_figure, save_chart

    scale = 100 if task in CLASS_FIGURES else 1
    # Errors in the unit of the values, of very different sizes, have a panel each; percentages share one.
    names = TASK_METRICS[task]
    groups = [list(names)] if task in CLASS_FIGURES else [[name] for name in names]
    panels = [(split, group) for split in summary for group in groups]
    columns = max(1, len(groups)) if len(groups) > 1 else min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns) or 1
    figure = make_figure(4.2 * columns, 3.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (split, group) in zip(grid, panels, strict=False):
        shown = [name for name in group if name in summary[split]]
        for place, name in enumerate(shown):
            values = [None if value is None else scale * value for value in summary[split][name]["values"]]
            for number, (run, value) in enumerate(zip(runs, values, strict=True)):
                if value is not None:
                    side = 0.24 * (number / max(1, len(runs) - 1) - 0.5) if len(runs) > 1 else 0
                    axes.plot(place + side, value, "o", color=f"C{number % 10}", label=run if place == 0 else None)
            if summary[split][name]["mean"] is not None:
                mean = scale * summary[split][name]["mean"]
                axes.hlines(mean, place - 0.25, place + 0.25, color="black", linewidth=1.2)
        axes.set_xticks(range(len(shown)), [names[name] for name in shown], rotation=20, ha="right")
        axes.set(title=split, xlim=(-0.6, len(shown) - 0.4), ylabel="%" if scale == 100 else "")
        axes.grid(alpha=0.3, axis="y")
    if panels and len(runs) <= 12:
        grid[0].legend(fontsize="small")
    save_chart(figure, path)


_CARD = """# {name}

{what}. This folder holds their summary and no model: none of them was chosen. Each is a whole model with its card in a
folder of its own: {folders}.

## Results{unit}

{how}

{tables}

![a dot for each run, a line at the mean](summary.png)

`{summary}` holds every figure of every run. `recipe.yaml` repeats all of them:
`prithvi-hf finetune --config recipe.yaml --output_dir FOLDER`.

{notes}## Versions

{versions}
"""


def write_summary_card(
    folder: Path,
    recipe: TrainingRecipe,
    what: str,
    summary: Mapping[str, Mapping[str, Any]],
    runs: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """Write `README.md` of some runs: what they are, and a table of each split.

    Args:
        folder: Where it goes.
        recipe: The recipe of all runs.
        what: The first words, such as "Three trainings of ...".
        summary: What [`summarize_runs`] gives.
        runs: Names of the runs, which are those of their folders.
        notes: Further sections.
    """
    task, labels = recipe.data.task, recipe.data.class_names or []
    tables = []
    for split, rows in tabulate_summary(summary, task, labels).items():
        tables += [f"### {escape_text(split)}", "", f"| metric | {' | '.join(_COLUMNS.values())} |"]
        tables += ["|---" * (len(_COLUMNS) + 1) + "|"]
        tables += [f"| {escape_text(title)} | {' | '.join(row)} |" for title, row in rows.items()] + [""]
    text = _CARD.format(
        name=escape_text(folder.resolve().name),
        what=what,
        folders=", ".join(f"`{escape_code(run)}`" for run in runs),
        unit=" (%)" if task in CLASS_FIGURES else "",
        how=HOW_COMPUTED,
        tables="\n".join(tables).strip(),
        summary=SUMMARY,
        notes="".join(f"{note}\n\n" for note in notes),
        versions="\n".join(f"- {name}: {number}" for name, number in list_versions().items()),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `summary.json`, whole or not at all."""
    with complete_or_absent(folder / SUMMARY) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read `summary.json`; None where there is none that is whole."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("runs"), dict) else None
