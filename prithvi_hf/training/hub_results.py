# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the Hub is told of a run beside its model: the dataset and its licence, and results in the form it reads."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from prithvi_hf.data.builders import find_builder
from prithvi_hf.data.load import is_parquet
from prithvi_hf.hub import EVAL_RESULTS
from prithvi_hf.training.recipe_options import DataArguments
from prithvi_hf.training.training_args import TASK_METRICS


def find_hub_dataset(data: DataArguments) -> str | None:
    """Find the Hub id of a run's dataset; None where it is not known to be on the Hub."""
    options = data.dataset_options if isinstance(data.dataset_options, dict) else {}
    if is_parquet(data.dataset):
        default = data.dataset if "/" in data.dataset else None
    else:
        default = getattr(find_builder(data.dataset), "REPOSITORY", None)
    return data.hub_dataset_id or options.get("repository") or default


def find_data_license(data: DataArguments) -> str | None:
    """Find the licence of a run's data, a name or a sentence; None where it is not known."""
    return data.data_license or (None if is_parquet(data.dataset) else find_builder(data.dataset).LICENSE)


def write_eval_results(
    folder: str | Path, data: DataArguments, results: Mapping[str, Any], splits: Mapping[str, str]
) -> list[Path]:
    """Write the first metric of each split under `.eval_results`, whose files the Hub shows beside a model.

    An entry belongs to a dataset of the Hub: without one nothing is written. What an earlier evaluation wrote is
    replaced.

    Args:
        folder: The folder of the model.
        data: The options of the data.
        results: Figures from 0 to 1 by prefix and name, as in `all_results.json`.
        splits: Names of the splits by the prefix of their figures.

    Returns:
        The files, one per dataset.
    """
    dataset, (metric, title) = find_hub_dataset(data), next(iter(TASK_METRICS[data.task].items()))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{split}_{metric}",
            value=round(results[f"{prefix}_{metric}"], 4),
            date=now,
            notes=f"{title} of the split {split}, measured by prithvi_hf",
        )
        for prefix, split in splits.items()
        if dataset is not None and results.get(f"{prefix}_{metric}") is not None
    ]
    target = Path(folder) / EVAL_RESULTS
    for earlier in target.glob("*.yaml"):
        earlier.unlink()
    if dataset is None or not entries:
        return []
    target.mkdir(exist_ok=True)
    path = target / f"{dataset.rpartition('/')[2]}.yaml"
    path.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")
    return [path]
