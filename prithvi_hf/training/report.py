# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`report.html`: all that a run found on one page that needs no other file, made from the files of the run alone."""

import base64
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from prithvi_hf.metrics.calibration import NUM_BINS, calibration_metrics
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.outputs.palette import class_palette, format_color
from prithvi_hf.training.chip_figures import (
    compute_figures,
    find_splits,
    group_figures,
    read_chip_figures,
    read_columns,
    read_metadata,
    sum_bins,
)
from prithvi_hf.training.chip_pictures import CHIP_PICTURES, score_chips
from prithvi_hf.training.intervals import bootstrap_interval, describe_interval
from prithvi_hf.training.recipe_options import CLASS_FIGURES
from prithvi_hf.training.report_charts import LINE_COLORS, draw_lines
from prithvi_hf.training.run_record import RUN_RECORD, RunRecord, read_run_record
from prithvi_hf.training.training_args import TASK_METRICS


REPORT = "report.html"
"""The page in the folder of a run."""
_CLASS_COLUMNS = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "boundary_iou": "Boundary IoU",
    "average_precision": "Average precision",
}
_MAX_CURVES, _MAX_CONFUSION, _MAX_GROUPS, _MAX_CHIPS = 12, 32, 200, 10
_CLASS_CURVES = "Each class, validation"
_PICTURE_NAME = re.compile(r"(best|worst)-\d+\.webp")
_MAX_PICTURE_BYTES = 400_000


@dataclass(frozen=True)
class Figure:
    """A figure of the page, with its name for machines.

    Attributes:
        name: such as `eval/mean_iou`.
        value: None where it is not defined.
        text: what people read.
        interval: its ends, if it has one.
    """

    name: str
    value: float | None
    text: str
    interval: "tuple[Figure, Figure] | None" = None

    def __html__(self) -> str:
        """Write it as `data`, whose value has every digit, with its interval below; names come from strangers."""
        if self.value is None:
            return '<span class="none">-</span>'
        written = f'<data data-figure="{escape(self.name)}" value="{self.value!r}">{escape(self.text)}</data>'
        if self.interval is None:
            return written
        low, high = self.interval
        return f'{written}<small class="interval">{low.__html__()} to {high.__html__()}</small>'


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a run, from its files alone, whole or not at all.

    Args:
        folder: that of a run, with `chip_figures.parquet` and `config.json`. What else it has is told too:
            `trainer_state.json` (curves), `run.json` (data, versions, pictures), `recipe.yaml` (options) and
            `all_results.json` (time).

    Returns:
        The page.

    Raises:
        FileNotFoundError: there is no such folder, or it has no figures of chips.
        ValueError: one of the files is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected the folder of a run, found none at {folder}. Name its --output_dir.")
    table, record = read_chip_figures(folder), read_run_record(folder)
    about = read_metadata(table)
    config = PrithviConfig.from_pretrained(folder) if (folder / "config.json").is_file() else PrithviConfig()
    task, names = about["task"], about["class_names"]
    own_colors = config.class_colors if len(config.class_colors or ()) == len(names) else None
    colors = [format_color(color) for color in class_palette(len(names), own_colors, names)]
    splits = [describe_split(prefix, part, names) for prefix, part in find_splits(table).items()]
    state, results = read_json(folder / "trainer_state.json"), read_json(folder / "all_results.json")
    options = _read_options(folder / "recipe.yaml")
    with explain_damage(folder / "trainer_state.json"):
        curves = draw_curves(state.get("log_history", []), task, names, colors)
        time = describe_state(state)
    with explain_damage(folder / "all_results.json"):
        time = describe_results(results) | time
    with explain_damage(folder / RUN_RECORD):
        data, pictures = describe_data(record, names), embed_pictures(folder, record)
        used = {options.get("train_split", "train"), options.get("eval_split", "validation")}
        headline, is_test = choose_headline(splits, used, {row["split"]: row["digest"] for row in data})
    environment = Environment(
        loader=PackageLoader("prithvi_hf.training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=folder.resolve().name,
        task=task,
        about=about,
        unit=config.target_unit if task == "regression" else None,
        temperature=config.temperature,
        splits=splits,
        headline=headline,
        is_test=is_test,
        titles=[title for name, title in TASK_METRICS[task].items() if any(name in split["all"] for split in splits)],
        classes=list(zip(names, colors, strict=True)),
        class_figure=CLASS_FIGURES.get(task),
        curves=curves,
        pictures=pictures,
        data=data,
        record=record,
        options=options,
        time=time,
    )
    with complete_or_absent(folder / REPORT) as part:
        part.write_text(page, encoding="utf-8")
    return folder / REPORT


def choose_headline(
    splits: Sequence[Mapping[str, Any]], used: Collection[str], digests: Mapping[str, str]
) -> tuple[Mapping[str, Any], bool]:
    """Choose the split whose figures come first: a test of chips that the training has not used.

    Args:
        splits: the evaluations as of [`describe_split`], in order.
        used: names of the splits that were trained on, or that chose the checkpoint.
        digests: of the files of each split by name, as far as they were checked.

    Returns:
        The first split that is neither used nor holds the files of one that is, and True; without one the first
        split, and False.
    """
    seen = {digests[name] for name in used if name in digests}
    tests = [one for one in splits if one["name"] not in used and digests.get(one["name"]) not in seen]
    return (tests[0], True) if tests else (splits[0], False)


def describe_split(prefix: str, table: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """Compute what the page tells of one evaluation from its chips, each number as a [`Figure`]."""
    task, columns, metrics = read_metadata(table)["task"], read_columns(table), compute_figures(table)
    intervals = bootstrap_interval(table)
    percent = task in CLASS_FIGURES

    def show(name: str, value: float | None) -> Figure:
        is_share = percent and not name.endswith("loss")
        text = "" if value is None else f"{100 * value:.2f}" if is_share else f"{value:.4g}"
        return Figure(f"{prefix}/{name}", value, text)

    def show_with_interval(name: str) -> Figure:
        ends, figure = intervals.get(name), show(name, metrics[name])
        return (
            figure
            if ends is None
            else replace(figure, interval=(show(f"{name}/low", ends[0]), show(f"{name}/high", ends[1])))
        )

    per_class = [name for name in _CLASS_COLUMNS if f"per_category_{name}" in metrics]
    main = next(iter(TASK_METRICS[task]))
    scores, chips = score_chips(table), table["chip"].to_pylist()
    order = [place for place in np.argsort(scores, kind="stable").tolist() if scores[place] == scores[place]]
    groups = group_figures(table)
    shown = [name for name in TASK_METRICS[task] if name in metrics]
    return {
        "prefix": prefix,
        "name": table["split"][0].as_py(),
        "chips": Figure(f"{prefix}/chips", len(table), f"{len(table):,}"),
        "all": shown,
        "main": [show_with_interval(name) for name in shown],
        "intervals": describe_interval(table),
        "loss": show("loss", metrics["loss"]),
        "class_titles": [_CLASS_COLUMNS[name] for name in per_class],
        "classes": [
            [show(f"per_category_{name}/{place}", metrics[f"per_category_{name}"][place]) for name in per_class]
            for place in range(len(names) if per_class else 0)
        ],
        "confusion": count_confusion(prefix, columns, len(names)),
        "reliability": measure_reliability(prefix, columns),
        "group_titles": [TASK_METRICS[task][name] for name in shown],
        "groups": [
            (group, values["chips"], [show(f"group/{group}/{name}", values[name]) for name in shown])
            for group, values in sorted(groups.items(), key=lambda pair: _sort_key(pair[1][main], task))[:_MAX_GROUPS]
        ],
        "more_groups": max(0, len(groups) - _MAX_GROUPS),
        "worst": [
            (chips[place], _show_score(f"{prefix}/chip/{place}", float(scores[place]), task))
            for place in order[:_MAX_CHIPS]
        ],
        "scatter": scatter_values(columns) if task == "regression" else None,
    }


def _sort_key(value: float | None, task: str) -> float:
    """Put the worst groups first, and those without a figure last."""
    if value is None:
        return float("inf")
    return -value if task == "regression" else value


def _show_score(name: str, score: float, task: str) -> Figure:
    if task == "segmentation":
        return Figure(name, score, f"{100 * score:.2f}")
    return Figure(name, -score, f"{-score:.4g}")


def count_confusion(prefix: str, columns: Mapping[str, np.ndarray], num_labels: int) -> list[list[dict[str, Any]]]:
    """Give counts of a confusion matrix, rows of labels, each with its share of the row; of few enough classes."""
    if "confusion" in columns:
        matrix = columns["confusion"].sum(axis=0).reshape(num_labels, num_labels)
    elif "labels" in columns and columns["labels"].shape[1] == 1:  # one class of a chip
        labels, predicted = columns["labels"][:, 0].astype(int), columns["logits"].argmax(axis=1)
        valid = labels >= 0
        matrix = np.zeros((num_labels, num_labels), np.int64)
        np.add.at(matrix, (labels[valid], predicted[valid]), 1)
    else:
        return []
    if num_labels > _MAX_CONFUSION:
        return []
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return [
        [
            {
                "count": Figure(f"{prefix}/confusion/{row}/{column}", int(matrix[row, column]), f"{count:,}"),
                "share": f"{100 * shares[row, column]:.1f}",
                "heat": round(float(shares[row, column]), 3),
                "right": row == column,
            }
            for column, count in enumerate(matrix[row].tolist())
        ]
        for row in range(num_labels)
    ]


def measure_reliability(prefix: str, columns: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Draw accuracy by confidence, of all classes together; None where it was not counted."""
    if "bin_count" not in columns:
        return None
    bins = sum_bins(columns)
    errors = calibration_metrics(*bins)
    counts, correct, confidence = (part.numpy().sum(axis=0) for part in bins)
    filled = np.flatnonzero(counts)
    points = [(float(confidence[place] / counts[place]), float(correct[place] / counts[place])) for place in filled]

    def show(name: str, value: float | None) -> Figure:
        return Figure(f"{prefix}/{name}", value, "" if value is None else f"{100 * value:.2f}")

    rows = [
        {
            "range": f"{place / NUM_BINS:.2f} to {(place + 1) / NUM_BINS:.2f}",
            "count": Figure(f"{prefix}/reliability/{place}/count", int(counts[place]), f"{int(counts[place]):,}"),
            "confidence": show(f"reliability/{place}/confidence", x),
            "accuracy": show(f"reliability/{place}/accuracy", y),
        }
        for place, (x, y) in zip(filled.tolist(), points, strict=True)
    ]
    per_class = errors["per_category_calibration_error"]
    return {
        "error": show("calibration_error", errors["calibration_error"]),
        "classes": [show(f"per_category_calibration_error/{place}", value) for place, value in enumerate(per_class)],
        "chart": draw_lines({"accuracy": points}, "confidence", (0.0, 1.0), diagonal=True),
        "rows": rows,
    }


def scatter_values(columns: Mapping[str, np.ndarray]) -> Markup:
    """Draw the mean predicted over the mean true value of each chip."""
    count, error, _, _, total, _ = columns["error_sums"].T
    valid = count > 0
    truth = total[valid] / count[valid]
    predicted = truth + error[valid] / count[valid]
    order = np.argsort(truth)
    pairs = list(zip(truth[order].tolist(), predicted[order].tolist(), strict=True))
    line = [(value, value) for value in truth[order].tolist()]
    return draw_lines({"mean prediction of a chip": pairs, "mean reference": line}, "mean reference of a chip")


def draw_curves(
    history: Sequence[Mapping[str, Any]], task: str, names: Sequence[str], colors: Sequence[str]
) -> dict[str, Markup]:
    """Draw loss, metrics, learning rate and throughput of a log over the steps, by title; nothing where none is."""

    def read(key: str) -> list[tuple[float, float]]:
        return [
            (entry["step"], entry[key])
            for entry in history
            if isinstance(entry.get(key), int | float) and isinstance(entry.get("step"), int)
        ]

    metric, title = next(iter(TASK_METRICS[task].items()))
    figure = CLASS_FIGURES.get(task)
    of_classes = {name: read(f"eval_{figure}/{name}") for name in names[:_MAX_CURVES]}
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {
        "Loss": {"training": read("loss"), "validation": read("eval_loss")},
        f"{title}, validation": {title: read(f"eval_{metric}")},
        _CLASS_CURVES: of_classes,
        "Learning rate": {"learning rate": read("learning_rate")},
        "Chips per second": {"chips per second": read("chips_per_second")},
    }
    return {
        title: draw_lines(series, "step", colors=colors if title == _CLASS_CURVES else LINE_COLORS)
        for title, series in charts.items()
        if any(series.values())
    }


def embed_pictures(folder: Path, record: RunRecord) -> list[dict[str, Any]]:
    """Embed the pictures of a record, by name in their own folder alone: the record may be a stranger's."""
    embedded = []
    for picture in record.pictures:
        path = folder / CHIP_PICTURES / str(picture.file)
        if not _PICTURE_NAME.fullmatch(str(picture.file)) or not path.is_file() or path.is_symlink():
            continue
        if path.stat().st_size > _MAX_PICTURE_BYTES:
            continue
        content = base64.b64encode(path.read_bytes()).decode()
        embedded.append({"picture": picture, "source": f"data:image/webp;base64,{content}"})
    return embedded


def describe_data(record: RunRecord, names: Sequence[str]) -> list[dict[str, Any]]:
    """Tell of each split its chips, the share of each class, and what is ignored or without data."""
    rows = []
    for split, values in record.data.items():
        labelled, total = max(values["labelled_pixels"], 1), max(values["total_pixels"], 1)
        shares = [f"{pixels / labelled:.1%}" for pixels in values["class_pixels"]]
        rows.append(
            {
                "split": split,
                "chips": Figure(f"data/{split}/chips", values["chips"], f"{values['chips']:,}"),
                "shares": dict(zip(names, shares, strict=False)),
                "ignored": f"{values['ignored_pixels'] / total:.1%}",
                "nodata": f"{values['nodata_pixels'] / total:.1%}",
                "sizes": ", ".join(f"{chips} of {size}" for size, chips in values["sizes"].items()),
                "digest": values["digest"],
            }
        )
    return rows


def describe_results(results: Mapping[str, Any]) -> dict[str, str]:
    """Tell how long the training took."""
    told = {}
    if isinstance(results.get("train_runtime"), int | float):
        minutes, seconds = divmod(round(results["train_runtime"]), 60)
        told["training"] = f"{minutes // 60} h {minutes % 60} min {seconds} s"
    if isinstance(results.get("epoch"), int | float):
        told["epochs"] = f"{results['epoch']:g}"
    return told


def describe_state(state: Mapping[str, Any]) -> dict[str, str]:
    """Tell the steps of a training and its throughput."""
    told = {"steps": f"{state['global_step']:,}"} if state.get("global_step") else {}
    lines = [entry for entry in state.get("log_history", []) if "chips_per_second" in entry]
    if lines:
        told["chips per second, median"] = f"{np.median([line['chips_per_second'] for line in lines]):.4g}"
        told["waiting for data, median"] = f"{np.median([line['data_wait'] for line in lines]):.1%}"
        told["memory, largest"] = f"{max(line['memory_gb'] for line in lines):.2f} GB"
    return told


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Name the file whose content is not what a run writes, which is of any shape where it is damaged."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(
            f"Expected {path} as a run leaves it, found other content ({type(error).__name__}: {error}). Remove it to "
            "leave it out."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of results; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be JSON, found: {error}. Remove it to leave it out.") from error
    return content if isinstance(content, dict) else {}


def _read_options(path: Path) -> dict[str, str]:
    """Read the options of a run as text; nothing where there are none."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be YAML, found: {error}. Remove it to leave it out.") from error
    return {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else {}
