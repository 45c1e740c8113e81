# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of each chip of an evaluation: a Parquet file beside the model, and every metric computed from it again.

A table has one row per chip and split:

| column | type | what |
|---|---|---|
| `split`, `prefix` | string | name of the split, and what stands before its metrics (`eval`, `test`, ...) |
| `chip`, `group` | string | id of the chip, and its group or null |
| `loss`, `loss_weight` | float64, int64 | mean loss (null without a label), and the number of what it is the mean of |
| `label_digest` | int64 | of the labels as they were counted: two models were measured on the same ones or not |
| `confusion` | list<int64> | segmentation: pixels, num_labels x num_labels, row = label, column = prediction |
| `pixels` | int64 | segmentation: labelled pixels |
| `boundary_intersection`, `boundary_union` | list<int64> | segmentation: per class, see `count_boundaries` |
| `bin_count`, `bin_correct`, `bin_confidence` | list<int64>, <float64> | see `count_bins`, num_labels x 15 |
| `error_sums` | list<float64> | regression: the six sums of `sum_errors` |
| `logits`, `labels` | list<float64> | classification: one number per class; the class number, or a number per class |

and further columns of numbers, one or a list per chip, that `Task.measures` add. The metadata of the schema hold, as
JSON under `prithvi_hf`, `task`, `class_names`, `model`, `model_digest` and `version`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet
import torch

from prithvi_hf.metrics.boundary_iou import boundary_metrics
from prithvi_hf.metrics.calibration import NUM_BINS, calibration_metrics
from prithvi_hf.metrics.classification_metrics.classification_metrics import classification_metrics
from prithvi_hf.metrics.regression_metrics.regression_metrics import metrics_from_sums
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import metrics_from_confusion_matrix
from prithvi_hf.outputs.cog import complete_or_absent


CHIP_FIGURES = "chip_figures.parquet"
"""The file in the folder of a run."""
ADDED_UP = {"segmentation": "confusion", "regression": "error_sums"}
"""Columns whose sum over chips gives the metrics, by task."""
_METADATA = b"prithvi_hf"
_COUNTS = ("confusion", "boundary_intersection", "boundary_union", "bin_count", "bin_correct")
_TYPES = {
    **dict.fromkeys(("split", "prefix", "chip", "group"), pa.string()),
    **{"loss": pa.float64(), **dict.fromkeys(("loss_weight", "label_digest", "pixels"), pa.int64())},
    **dict.fromkeys(_COUNTS, pa.list_(pa.int64())),
    **dict.fromkeys(("bin_confidence", "error_sums", "logits", "labels"), pa.list_(pa.float64())),
}
_OF_TASK = {"segmentation": ["confusion"], "regression": ["error_sums"], "classification": ["logits", "labels"]}
_TOGETHER = (("boundary_intersection", "boundary_union"), ("bin_count", "bin_correct", "bin_confidence"))
_WEIGHT_FILES = ("*.safetensors", "*.onnx", "*.onnx.data", "*.pt2", "*.xml", "*.bin")

Columns = Mapping[str, np.ndarray]
"""Numbers of chips by name: (chips,) or (chips, n) each."""
Metrics = dict[str, Any]


def compute_metrics(task: str, columns: Columns) -> Metrics:
    """Compute the metrics of chips, `loss` among them, from their numbers.

    Args:
        task: one of `TASKS`.
        columns: the columns of a table as arrays, see [`read_columns`].

    Returns:
        The metrics of `metrics_from_confusion_matrix`, of `metrics_from_sums` or of `classification_metrics`; of
        `boundary_metrics` and `calibration_metrics` where they were counted; and `loss`, None where nothing has a
        label.
    """
    weights = columns["loss_weight"]
    counted = weights > 0
    loss = float((columns["loss"][counted] * weights[counted]).sum() / weights.sum()) if counted.any() else None
    if task == "classification":
        labels = torch.from_numpy(columns["labels"])
        labels = labels[:, 0].long() if labels.shape[1] == 1 else labels
        of_images = classification_metrics(torch.from_numpy(columns["logits"]), labels)
        return {**of_images, **compute_calibration(columns), "loss": loss}
    sums = torch.from_numpy(columns[ADDED_UP[task]].sum(axis=0))
    if task == "regression":
        return {**metrics_from_sums(sums), "loss": loss}
    side = round(len(sums) ** 0.5)
    metrics: Metrics = {**metrics_from_confusion_matrix(sums.reshape(side, side)), **compute_calibration(columns)}
    if "boundary_union" in columns:
        counts = [torch.from_numpy(columns[f"boundary_{name}"].sum(axis=0)) for name in ("intersection", "union")]
        metrics |= boundary_metrics(*counts)
    return {**metrics, "loss": loss}


def compute_calibration(columns: Columns) -> Metrics:
    """Compute the metrics of `calibration_metrics` where the bins of confidence were counted; else none."""
    if "bin_count" not in columns:
        return {}
    return calibration_metrics(*sum_bins(columns))


def sum_bins(columns: Columns) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add up the bins of chips: pixels, those that are right and confidences, (num_labels, 15) each."""
    names = ("bin_count", "bin_correct", "bin_confidence")
    count, correct, sums = (torch.from_numpy(columns[name].sum(axis=0)).reshape(-1, NUM_BINS) for name in names)
    return count, correct, sums


def make_chip_table(
    columns: Columns,
    *,
    task: str,
    split: str,
    prefix: str,
    chips: Sequence[str],
    groups: Sequence[str] | None = None,
    class_names: Sequence[str] = (),
    model: str | Path | None = None,
    model_digest: str | None = None,
) -> pa.Table:
    """Make the table of one evaluation.

    Args:
        columns: the numbers of the chips, in their order.
        task: one of `TASKS`.
        split: name of the split.
        prefix: what stands before its metrics.
        chips: id of each chip.
        groups: group of each chip.
        class_names: name of each class.
        model: folder or Hub id of the model.
        model_digest: of its weights, see [`digest_weights`].
    """
    parts: dict[str, Any] = {
        "split": pa.array([split] * len(chips)),
        "prefix": pa.array([prefix] * len(chips)),
        "chip": pa.array(chips, pa.string()),
        "group": pa.array([None] * len(chips) if groups is None else groups, pa.string()),
    }
    for name, values in columns.items():
        if values.ndim == 1:
            missing = columns["loss_weight"] <= 0 if name == "loss" else None
            parts[name] = pa.array(values, mask=missing)
        else:
            flat = pa.array(values.reshape(-1))
            parts[name] = pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], flat)
    about = {
        "task": task,
        "class_names": list(class_names),
        "model": None if model is None else str(model),
        "model_digest": model_digest,
        "version": version("prithvi_hf"),
    }
    return pa.table(parts).replace_schema_metadata({_METADATA: json.dumps(about)})


def write_chip_figures(path: str | Path, tables: Sequence[pa.Table]) -> None:
    """Write the tables of a model's evaluations as one Parquet file, whole or not at all."""
    with complete_or_absent(path) as part:
        parquet.write_table(pa.concat_tables(tables), part, compression="zstd")


def read_chip_figures(path: str | Path) -> pa.Table:
    """Read the table of a run's folder, or of a Parquet file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not such a table.
    """
    place = Path(path) / CHIP_FIGURES if Path(path).is_dir() else Path(path)
    if not place.is_file():
        raise FileNotFoundError(
            f"Expected figures of chips in {place}, found none. `prithvi-hf finetune` leaves them beside the model, "
            "and `prithvi-hf evaluate --chip_figures FILE` writes them of any model."
        )
    try:
        table = parquet.read_table(place)
    except pa.ArrowException as error:
        raise ValueError(f"Expected {place} to be a Parquet file, found: {error}. Evaluate again.") from error
    try:
        return check_chip_table(table)
    except (ValueError, RecursionError) as error:  # of Arrow and JSON too
        raise ValueError(
            f"Expected {place} to hold figures of chips, found {error}. Write it again by `prithvi-hf evaluate "
            "--chip_figures FILE`."
        ) from error


def check_chip_table(table: pa.Table) -> pa.Table:
    """Give a table with the types of its columns as this module has them; the file may be a stranger's, or damaged.

    Raises:
        ValueError: what is wrong with it, in words that go after "found".
    """
    about = json.loads((table.schema.metadata or {}).get(_METADATA, b"null"))
    if not isinstance(about, dict) or not {"task", "class_names", "model", "model_digest", "version"} <= set(about):
        raise ValueError(f"none of its metadata, and the columns {', '.join(table.column_names)}")
    task, names = about["task"], about["class_names"]
    if task not in [*_OF_TASK] or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the task {task!r} with the class names {names!r}")
    columns = set(table.column_names)
    needed = {"split", "prefix", "chip", "group", "loss", "loss_weight", *_OF_TASK[task]}
    needed |= {name for part in _TOGETHER if columns & {*part} for name in part}
    if needed - columns or len(columns) < table.num_columns or not len(table):
        absent = ", ".join(sorted(needed - columns)) or "no row or a column twice"
        raise ValueError(f"{len(table)} chips with the columns {', '.join(table.column_names)}: {absent} missing")
    for place, name in enumerate(table.column_names):
        try:
            column = table[name].cast(_TYPES.get(name, table[name].type))
        except pa.ArrowException as error:
            raise ValueError(f"{name} of type {table[name].type} ({error})") from error
        if column.null_count and name not in ("group", "loss"):
            raise ValueError(f"chips without {name}")
        if pa.types.is_list(column.type):
            width, numbers = pc.list_value_length(column), pc.list_flatten(column)
            if pc.min(width) != pc.max(width) or numbers.null_count or pa.types.is_nested(numbers.type):
                raise ValueError(f"{name} of {pc.min(width)} to {pc.max(width)} numbers, or with gaps")
        table = table.set_column(place, name, column)
    widths = {name: len(table[name][0]) for name in columns & {name for name in _TYPES if "list" in str(_TYPES[name])}}
    size = len(names) or round(widths.get("confusion", 0) ** 0.5) or widths.get("logits", 0)
    wanted = dict.fromkeys(widths, (size,)) | {"confusion": (size**2,), "error_sums": (6,), "labels": (1, size)}
    wanted |= dict.fromkeys(_TOGETHER[1], (size * NUM_BINS,))
    odd = [name for name, width in widths.items() if width not in wanted[name]]
    if odd:
        raise ValueError(f"{widths[odd[0]]} numbers in {odd[0]} of a chip of {size} classes")
    for name in columns & {*_COUNTS, "loss_weight", "pixels"}:
        counts = pc.list_flatten(table[name]) if name in widths else table[name]
        # Of floating point, which does not wrap around where the sum is too large.
        if pc.min(counts).as_py() < 0 or pc.sum(counts.cast(pa.float64(), safe=False)).as_py() >= 2**53:
            raise ValueError(f"{name} with counts below 0 or above {2**53}")
    if task == "regression":
        sums = read_columns(table)["error_sums"]
        if (sums[:, [0, 2, 3, 5]] < 0).any() or (sums[:, 0] >= 2**53).any():
            raise ValueError("error_sums below 0")
    return table


def read_metadata(table: pa.Table) -> dict[str, Any]:
    """Give `task`, `class_names`, `model`, `model_digest` and `version` of a table."""
    return json.loads(table.schema.metadata[_METADATA])


def change_metadata(table: pa.Table, **values: Any) -> pa.Table:
    """Change some of what [`read_metadata`] gives."""
    return table.replace_schema_metadata({_METADATA: json.dumps({**read_metadata(table), **values})})


def read_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Give the columns of numbers as arrays, (chips,) or (chips, n); a loss that is null is NaN."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type):
            continue
        if pa.types.is_list(column.type):
            values = column.combine_chunks()
            flat = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
            columns[name] = flat.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        else:
            columns[name] = column.to_numpy()
    return columns


def find_splits(table: pa.Table) -> dict[str, pa.Table]:
    """Give the part of each evaluation by its prefix, in order."""
    prefixes = table["prefix"].to_pylist()
    return {prefix: table.filter(pa.array([one == prefix for one in prefixes])) for prefix in dict.fromkeys(prefixes)}


def compute_figures(table: pa.Table) -> Metrics:
    """Compute the metrics of all chips of a table, exactly those of the evaluation that made it.

    A table of several evaluations is taken as one set of chips; [`find_splits`] divides it.
    """
    return compute_metrics(read_metadata(table)["task"], read_columns(table))


def group_figures(table: pa.Table) -> dict[str, Metrics]:
    """Compute the metrics of each group of chips, by name in alphabetical order, with `chips`, their number.

    Chips without a group are left out; a table without groups gives nothing.
    """
    task, columns = read_metadata(table)["task"], read_columns(table)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(table["group"].to_pylist()):
        if group is not None:
            members.setdefault(group, []).append(place)
    parts = {group: {name: values[members[group]] for name, values in columns.items()} for group in sorted(members)}
    return {group: {"chips": len(members[group]), **compute_metrics(task, part)} for group, part in parts.items()}


def digest_weights(model: str | Path) -> str | None:
    """Give the sha256 over the files of weights in a folder; None where there are none, as of a Hub id."""
    folder = Path(model)
    files = sorted({file for pattern in _WEIGHT_FILES for file in folder.glob(pattern)} if folder.is_dir() else ())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest() if files else None
