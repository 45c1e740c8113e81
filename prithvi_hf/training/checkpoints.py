# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The output folder of a run and its checkpoints: the newest whole one, and what a damaged one lacks."""

import itertools
import json
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from huggingface_hub import HfApi
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from prithvi_hf.data.chips import hash_file
from prithvi_hf.disk import write_folder
from prithvi_hf.hub import BEST_CHECKPOINT, LAST_CHECKPOINT, download_checkpoint, explain_hub_errors
from prithvi_hf.models.prithvi.adapter_prithvi import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.training_args import PrithviTrainingArguments


logger = logging.get_logger(__name__)

DIGESTS = "sha256.json"
"""Digests of a checkpoint's files; empty until all are there."""
# Workers of a run that was killed notice within five seconds that it is gone, and hold its lock until then.
_SECONDS_TO_WAIT = 10


def lock_output_folder(output_dir: str | Path) -> BaseFileLock:
    """Make the output folder and hold it until the lock is released or the process ends, however it ends.

    Raises:
        ValueError: Another run holds it.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_SECONDS_TO_WAIT)
    except Timeout as error:
        raise ValueError(
            f"Expected --output_dir {folder} to be of one run at a time, found another one that writes to it. Choose "
            "another folder, or wait for its end or end it."
        ) from error
    return lock


def check_output_folder(output_dir: str | Path | None) -> None:
    """Raise where the output folder has disappeared, in which the run's checkpoints were."""
    if not Path(output_dir or ".").is_dir():
        raise FileNotFoundError(describe_removed(output_dir))


def describe_removed(output_dir: str | Path | None) -> str:
    """Say in one sentence that the output folder has disappeared."""
    return (
        f"Expected the output folder {output_dir} to stay while the run goes on, found it removed with its "
        "checkpoints: start the run again."
    )


def put_aside(output_dir: str | Path, patterns: Sequence[str]) -> None:
    """Move what an earlier run left out of the way of a fresh one, which would mix with it, into `earlier-TIME`."""
    folder = Path(output_dir)
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    # The Trainer of a run that is about to start has made its folder.
    old = sorted(path for path in found if not path.is_dir() or any(path.iterdir()))
    if not old:
        return
    stamp = f"earlier-{time.strftime('%Y%m%d-%H%M%S')}"
    # Two runs may begin in one second.
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    earlier = next(folder / name for name in names if not (folder / name).exists())
    earlier.mkdir()
    for path in old:
        path.rename(earlier / path.name)
    logger.warning(
        f"{folder} held checkpoints or results of an earlier run; they are in {earlier} now. Pass "
        "--resume_from_checkpoint true to continue a run instead."
    )


def begin_digests(checkpoint: str | Path) -> None:
    """Make the folder of a checkpoint, which is not whole until its digests are written."""
    Path(checkpoint).mkdir(parents=True, exist_ok=True)
    (Path(checkpoint) / DIGESTS).write_bytes(b"")


def write_digests(checkpoint: str | Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write the SHA-256 of each file of a checkpoint into it and return them; those `known` by name are kept."""
    files = [path for path in sorted(Path(checkpoint).rglob("*")) if path.is_file() and path.name != DIGESTS]
    names = {path.relative_to(checkpoint).as_posix(): path for path in files}
    digests = {name: (known or {}).get(name) or hash_file(path) for name, path in names.items()}
    with complete_or_absent(Path(checkpoint) / DIGESTS) as part:
        part.write_text(json.dumps(digests, indent=1), encoding="utf-8")
    return digests


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


def fetch_checkpoint(training: PrithviTrainingArguments) -> str | None:
    """Fetch the checkpoint that an earlier run pushed to the repository of this one, into the cache of the Hub.

    None where there is none. Each process may call it, for the cache holds a file once.

    Raises:
        OSError: The Hub cannot be reached or refuses, or the checkpoint is not whole.
    """
    repo_id = training.hub_model_id or Path(training.output_dir or ".").resolve().name
    with explain_hub_errors(repo_id):
        if "/" not in repo_id:
            repo_id = f"{HfApi().whoami(training.hub_token)['name']}/{repo_id}"
    found = download_checkpoint(repo_id, training.hub_token, training.hub_revision)
    damage = None if found is None else find_damage(found)
    if damage is not None:
        raise OSError(
            f"Expected a whole checkpoint in {LAST_CHECKPOINT} of {repo_id}, found that {damage}. Start again without "
            "--resume_from_checkpoint, or download an earlier revision of it and name that folder."
        )
    return None if found is None else str(found)


def restore_best_checkpoint(checkpoint: str | Path, output_dir: str | Path) -> None:
    """Copy the best model so far, which was pushed beside a checkpoint, to where the run looks for it at its end."""
    source, state = Path(checkpoint).parent / BEST_CHECKPOINT, Path(checkpoint) / "trainer_state.json"
    best = json.loads(state.read_text(encoding="utf-8")).get("best_model_checkpoint")
    target = Path(output_dir) / Path(best or "none").name
    if source.is_dir() and best is not None and not target.exists():
        with write_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)


def find_run_name(checkpoint: str | Path) -> str | None:
    """Find the name under which trackers have the run of a checkpoint; None where none was noted."""
    name = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8")).get("trial_name")
    return name if isinstance(name, str) else None


def find_damage(checkpoint: str | Path) -> str | None:
    """Find what a checkpoint lacks that a run needs to continue from it; None where it is whole.

    The files are compared with the digests that were written with them. Of a checkpoint without digests, headers,
    tables of contents and lengths are read.
    """
    folder = Path(checkpoint)
    names = ["config.json"]
    # Of FSDP and DeepSpeed each process writes files, and only the digests tell whether all did.
    if any((*folder.glob("pytorch_model_fsdp*"), *folder.glob("global_step*"))):
        names += [DIGESTS]
    else:
        index = folder / "model.safetensors.index.json"  # of a large model, whose weights are in several files
        if (folder / ADAPTER_CONFIG_FILE).is_file():
            names += [ADAPTER_FILE]
        elif not index.is_file():
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
    if (folder / DIGESTS).is_file():
        if not _is_whole(folder / DIGESTS):
            return f"{DIGESTS} is damaged"
        for name, digest in json.loads((folder / DIGESTS).read_text(encoding="utf-8")).items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if hash_file(folder / name) != digest:
                return f"{name} is damaged"
    return None


def check_adapter(checkpoint: str | Path, model: Any) -> None:
    """Refuse to continue with another adapter than that of a checkpoint, or with one where it has none.

    Raises:
        ValueError: The options of the adapter differ.
    """
    path, names = Path(checkpoint, ADAPTER_CONFIG_FILE), ("r", "lora_alpha", "use_dora", "target_modules")
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    given = getattr(model, "peft_config", None) or {}
    config = given["default"].to_dict() if given else {}
    other = [name for name in names if saved.get(name) != config.get(name)]
    if other:
        found = ", ".join(f"{name} {saved.get(name)}" for name in other) if saved else "no adapter"
        raise ValueError(
            f"Expected {checkpoint} to be of the recipe's adapter, found {found} in it. Give the options that the run "
            "was started with."
        )


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
