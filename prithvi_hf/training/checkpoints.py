# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The checkpoints of a run: the newest whole one, and what a damaged one lacks."""

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import logging


logger = logging.get_logger(__name__)


def find_last_checkpoint(output_dir: str | Path, log: bool = True) -> str | None:
    """Find the newest whole checkpoint in the output folder of a run, or None.

    One that was cut off while being written, by a kill or a full disk, or that was damaged later is passed over; `log`
    names it, with what it lacks.
    """
    steps = {path: path.name.removeprefix("checkpoint-") for path in Path(output_dir).glob("checkpoint-*")}
    numbered = [path for path, step in steps.items() if step.isdecimal() and path.is_dir()]
    for checkpoint in sorted(numbered, key=lambda path: int(steps[path]), reverse=True):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint)
        if log:
            logger.warning(f"Passing over {checkpoint}, which is not whole: {damage}.")
    return None


def find_damage(checkpoint: str | Path) -> str | None:
    """Find what a checkpoint lacks that a run needs to continue from it; None where it is whole.

    Cheap for weights of any size: headers, tables of contents and lengths are read, the numbers are not.
    """
    folder = Path(checkpoint)
    names = ["config.json"]
    # FSDP and DeepSpeed write folders, which they check themselves.
    if not any(path.is_dir() for path in (*folder.glob("pytorch_model_fsdp*"), *folder.glob("global_step*"))):
        index = folder / "model.safetensors.index.json"  # of a large model, whose weights are in several files
        if not index.is_file():
            names += ["model.safetensors"]
        else:
            names += [index.name]
            if _is_whole(index):
                weight_map = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
                names += sorted(set(weight_map.values()))
        random_states = sorted(path.name for path in folder.glob("rng_state*.pth"))  # one per process
        names += ["optimizer.pt", "scheduler.pt", *(random_states or ["rng_state.pth"])]
    for name in [*names, "trainer_state.json"]:  # the order in which they are written
        if not (folder / name).is_file():
            return f"{name} is missing"
        if not _is_whole(folder / name):
            return f"{name} is damaged"
    return None


def _is_whole(path: Path) -> bool:
    """Whether a file ends where its own header or table of contents says."""
    try:
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy"):  # compares the header with the length of the file
                return True
        with zipfile.ZipFile(path) as archive:  # of torch.save; its table of contents is written last
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
