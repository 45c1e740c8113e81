# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Push the output folder of a training run to the Hub."""

import json
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

from prithvi_hf.models.prithvi.remote_code_prithvi import (
    CONFIG_FILE,
    IMAGE_PROCESSOR_FILE,
    commit_with_code,
    list_files,
)


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# What a training run leaves that is of use to itself alone, and pickles, which nobody should have to load.
_LEFT_BEHIND = (
    "checkpoint-*/*",
    "earlier-*/*",
    "runs/*",
    "wandb/*",
    "__pycache__/*",
    *("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl"),
)


def _check_output_folder(folder: Path) -> None:
    """Refuses a folder that holds no Prithvi model with its image processor."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; pass the output folder of a training run.")
    missing = [name for name in (CONFIG_FILE, IMAGE_PROCESSOR_FILE) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _WEIGHTS):
        missing.append(_WEIGHTS[0])
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}; pass the output folder of a training run, or save model and image "
            "processor into one folder by save_pretrained first."
        )
    model_type = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type")
    if model_type != "prithvi":
        raise ValueError(f'{folder / CONFIG_FILE} must be of model_type "prithvi", found {model_type!r}.')


def push_folder_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str = "Upload model",
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Pushes the output folder of a training run in one commit, with the code.

    Everything in the folder goes along (model, image processor, card, results, pictures), except checkpoints, the
    state of optimizer and run, logs, hidden files and pickles. The folder stays as it is.

    Args:
        folder: the folder, with `config.json`, `model.safetensors` and `preprocessor_config.json`.
        repo_id: the repository, `"user/name"` or `"name"`; it is created when there is none.
        commit_message: message of the commit.
        commit_description: longer text of the commit.
        private: whether a new repository is private, by default as the account is set up.
        token: access token, by default the stored one.
        revision: branch to commit to, created when there is none.
        create_pr: whether to open a pull request instead of committing.

    Returns:
        The commit.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it does not hold a Prithvi model with its image processor. Nothing is created then.
    """
    folder = Path(folder)
    _check_output_folder(folder)
    files = {
        name: path
        for name, path in list_files(folder).items()
        if not any(part.startswith(".") for part in name.split("/"))
        and not any(fnmatch(name, pattern) for pattern in _LEFT_BEHIND)
    }
    repo_id = HfApi().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    return commit_with_code(
        files,
        repo_id,
        revision,
        create_pr,
        token=token,
        commit_message=commit_message,
        commit_description=commit_description,
    )


__all__ = ["push_folder_to_hub"]
