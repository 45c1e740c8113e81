# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The Hub: push the output folder of a training run, and keep a checkpoint there to resume from elsewhere."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from prithvi_hf.models.prithvi.adapter_prithvi import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from prithvi_hf.models.prithvi.remote_code_prithvi import (
    CONFIG_FILE,
    EXPORT_FILE,
    IMAGE_PROCESSOR_FILE,
    commit_with_code,
    list_files,
)


LAST_CHECKPOINT, BEST_CHECKPOINT = "last-checkpoint", "best-checkpoint"
"""Folders of a repository: the newest checkpoint of a run, and the model of the best one so far."""
EVAL_RESULTS = ".eval_results"
"""Folder of a repository whose YAML files are the figures that the Hub shows."""
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", ADAPTER_FILE, EXPORT_FILE)
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
        HfHubHTTPError: The Hub refuses the upload; the message says what to do about it.
        ConnectionError: The Hub cannot be reached, or the connection broke. Call it again: files that have arrived are
            not sent again.
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
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        base = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base or Path(base).is_absolute():
            raise ValueError(
                f"Expected an adapter whose base model is on the Hub, found {base}, a folder that nobody else has. "
                f"Write the base's Hub id as base_model_name_or_path into {folder / ADAPTER_CONFIG_FILE}, or push a "
                f"merged model: `prithvi-hf merge {folder} MERGED`."
            )
    files = {
        name: path
        for name, path in list_files(folder).items()
        if (name.startswith(f"{EVAL_RESULTS}/") or not any(part.startswith(".") for part in name.split("/")))
        and (name == "openvino_model.bin" or not any(fnmatch(name, pattern) for pattern in _LEFT_BEHIND))
    }
    with explain_hub_errors(repo_id):
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


_REMEDIES = {
    401: "The token is missing or not valid: log in by `hf auth login`, or set HF_TOKEN.",
    403: "The token may not write there: make one with write access to it at https://huggingface.co/settings/tokens.",
    404: "Check the name, and that the token may see the repository.",
    413: "A file or the request is larger than the Hub takes: take what is not needed out of the folder.",
    429: "Too many requests: wait some minutes.",
}


@contextmanager
def explain_hub_errors(repo_id: str) -> Iterator[None]:
    """Add what to do about it to an error of the Hub; a connection that fails is a ConnectionError."""
    try:
        yield
    except (HTTPError, ConnectionError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # of a large file it comes inside one
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            remedy = _REMEDIES.get(status, "The Hub has trouble: try again later." if status >= 500 else "")
            cause.append_to_message(f" {remedy}")
            raise cause from None
        if not isinstance(cause, HTTPError | ConnectionError):
            raise
        raise ConnectionError(
            f"Expected a connection to the Hub for {repo_id}, found: {cause}. Check the network, and try again: what "
            "has arrived is not sent again."
        ) from error


@dataclass(frozen=True)
class CheckpointPush:
    """The upload of a checkpoint, in one commit: as the repository's model, with the code, and whole, to resume from.

    Attributes:
        repo_id: the repository.
        step: the optimisation step, for the message of the commit.
        files: copies or hard links of the files, by their path in the repository.
        folder: the folder that holds them, which is removed after the upload.
    """

    repo_id: str
    step: int
    files: dict[str, Path]
    folder: Path

    @classmethod
    def prepare(
        cls, checkpoint: Path, repo_id: str, step: int, path: str = LAST_CHECKPOINT, best: Path | None = None
    ) -> "CheckpointPush":
        """Link the files of a checkpoint, and the weights of the best one, which may be removed before they arrive."""
        folder = Path(tempfile.mkdtemp(prefix=".push-", dir=checkpoint.parent))
        files = {f"{path}/{name}": file for name, file in list_files(checkpoint).items()}
        files |= _find_model_files(checkpoint)
        if best is not None:
            files |= {f"{BEST_CHECKPOINT}/{name}": file for name, file in _find_model_files(best).items()}
        for name, file in files.items():
            files[name] = folder / name
            files[name].parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, files[name])
            except OSError:  # a file system without hard links
                shutil.copyfile(file, files[name])
        return cls(repo_id, step, files, folder)

    def run(self, token: str | None, revision: str | None) -> CommitInfo:
        """Upload, and take away what earlier checkpoints left in the same folders of the repository."""
        folders = {name.partition("/")[0] for name in self.files if "/" in name}
        try:
            with explain_hub_errors(self.repo_id):
                api = HfApi()
                if revision is not None:
                    api.create_branch(self.repo_id, branch=revision, token=token, exist_ok=True)
                present = api.list_repo_files(self.repo_id, revision=revision, token=token)
                gone = [name for name in present if name.partition("/")[0] in folders and name not in self.files]
                message = f"Training in progress, step {self.step}"
                return commit_with_code(
                    self.files, self.repo_id, revision, False, gone, token=token, commit_message=message
                )
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _find_model_files(checkpoint: Path) -> dict[str, Path]:
    """Find what `from_pretrained` needs of a checkpoint."""
    patterns = (CONFIG_FILE, IMAGE_PROCESSOR_FILE, "adapter_config.json", "model*.safetensors*", "adapter_model*")
    return {path.name: path for pattern in patterns for path in sorted(checkpoint.glob(pattern))}


def download_checkpoint(repo_id: str, token: str | None = None, revision: str | None = None) -> Path | None:
    """Download the newest checkpoint of a run and its best weights into the cache of the Hub; None where it has none.

    A download that broke off continues where it was.

    Raises:
        HfHubHTTPError: The Hub refuses; the message says what to do about it.
        ConnectionError: The Hub cannot be reached.
    """
    patterns = [f"{LAST_CHECKPOINT}/*", f"{BEST_CHECKPOINT}/*"]
    with explain_hub_errors(repo_id):
        try:
            HfApi().repo_info(repo_id, token=token, revision=revision)  # a snapshot would fall back on its cache
            folder = snapshot_download(repo_id, token=token, revision=revision, allow_patterns=patterns)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
    found = Path(folder) / LAST_CHECKPOINT
    return found if found.is_dir() else None
