# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Push the output folder of a training run to the Hub."""

import json
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

from prithvi_hf.models.prithvi.remote_code_prithvi import (
    CONFIG_FILE,
    EXPORT_FILE,
    IMAGE_PROCESSOR_FILE,
    commit_with_code,
    list_files,
)


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", EXPORT_FILE)
# What a training run leaves that is of use to itself alone, and pickles, which nobody should have to load.
_LEFT_BEHIND = (
    "checkpoint-*/*",
    "earlier-*/*",
    "runs/*",
    "wandb/*",
    "__pycache__/*",
    *("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl"),
)


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
    """Push the output folder of a training run, or of an export, in one commit, with the code.

    Everything in the folder goes along (model, image processor, card, results, pictures), except checkpoints, the
    state of optimizer and run, logs, hidden files and pickles. The folder stays as it is.

    Args:
        folder: The folder, with `config.json`, `model.safetensors` and `preprocessor_config.json`.
        repo_id: The repository, `"user/name"` or `"name"`; it is made when there is none.
        commit_message: Message of the commit.
        commit_description: Longer text of the commit.
        private: Whether a new repository is private, by default as the account is set up.
        token: Access token, by default the stored one.
        revision: Branch to commit to, made when there is none.
        create_pr: Whether to open a pull request instead of committing.

    Returns:
        The commit.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It does not hold a Prithvi model with its image processor. Nothing is created then.
    """
    folder = Path(folder)
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
    files = {
        name: path
        for name, path in list_files(folder).items()
        if not any(part.startswith(".") for part in name.split("/"))
        and (name == "openvino_model.bin" or not any(fnmatch(name, pattern) for pattern in _LEFT_BEHIND))
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
