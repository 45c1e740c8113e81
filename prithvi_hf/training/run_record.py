# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run's report tells besides its figures: data, versions, machine, time and pictures, in `run.json`."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from prithvi_hf.data.audit import SplitAudit
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.chip_pictures import ChipPicture
from prithvi_hf.training.model_card import list_versions


RUN_RECORD = "run.json"
"""The file in the folder of a run."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was made of.

    Attributes:
        data: of each split that was checked: `chips`, `class_pixels`, `class_chips`, `labelled_pixels`,
            `ignored_pixels`, `nodata_pixels`, `total_pixels`, `sizes` (text and chips) and `digest`.
        versions: of Python and the packages.
        machine: what it ran on: `system`, `processor` or `gpu`, `processes`, `cores`.
        pictures: those of the best and worst chips.
    """

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    pictures: list[ChipPicture] = field(default_factory=list)


def make_run_record(
    audits: Mapping[str, SplitAudit], pictures: Sequence[ChipPicture], processes: int, device: torch.device
) -> RunRecord:
    """Note the data, the versions and the machine of a run."""
    on_gpu = device.type == "cuda"
    machine = {
        "system": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{device.type}, {os.cpu_count()} cores",
        "processes": processes,
    }
    return RunRecord(
        {name: _note_split(audit) for name, audit in audits.items()}, list_versions(), machine, [*pictures]
    )


def _note_split(audit: SplitAudit) -> dict[str, Any]:
    """Note what is in a split, without its files, whose paths are of this machine."""
    names = ("chips", "class_pixels", "class_chips", "labelled_pixels", "ignored_pixels", "nodata_pixels")
    values = {name: getattr(audit, name) for name in (*names, "total_pixels", "digest")}
    return {**values, "sizes": {f"{height} x {width}": chips for (height, width), chips in audit.sizes.items()}}


def write_run_record(folder: Path, record: RunRecord) -> None:
    """Write the record of a run into its folder, whole or not at all."""
    with complete_or_absent(folder / RUN_RECORD) as part:
        part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")


def read_run_record(folder: Path) -> RunRecord:
    """Read the record in the folder of a run; an empty one where there is none.

    Raises:
        ValueError: the file is not such a record.
    """
    path = folder / RUN_RECORD
    if not path.is_file():
        return RunRecord()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = [ChipPicture(**picture) for picture in content.pop("pictures")]
        record = RunRecord(**content, pictures=pictures)
        odd = [name for name in ("data", "versions", "machine") if not isinstance(getattr(record, name), dict)]
        if odd:
            raise TypeError(f"{odd[0]} that is not an object")
        return record
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"Expected {path} to be the record of a run, found: {error}. Remove it to make a report without data, "
            "versions and pictures."
        ) from error
