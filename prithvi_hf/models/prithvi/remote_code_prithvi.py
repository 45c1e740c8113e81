# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pushing to the Hub together with the code, so that a process without prithvi_hf can load what was pushed.

Two keys tell transformers that a repository brings code: `auto_map` names the class behind each Auto class, and
`custom_pipelines` the pipeline behind a task. They are written into what goes to the Hub and into nothing else: a
folder with `custom_pipelines` needs `trust_remote_code=True` even where prithvi_hf is installed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME


if TYPE_CHECKING:
    # Never executed, but read: transformers finds the files of a class by the relative imports written in them. By
    # these lines each file leads to all of them, so that a copy from the Hub is complete and can be pushed again.
    from .configuration_prithvi import PrithviConfig  # noqa: F401
    from .image_processing_prithvi import PrithviImageProcessor  # noqa: F401
    from .modeling_prithvi import PrithviForSemanticSegmentation  # noqa: F401
    from .pipeline_prithvi import GeospatialSegmentationPipeline  # noqa: F401


MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_prithvi.PrithviConfig",
    "AutoModel": "modeling_prithvi.PrithviModel",
    "AutoModelForSemanticSegmentation": "modeling_prithvi.PrithviForSemanticSegmentation",
}
IMAGE_PROCESSOR_AUTO_MAP = {"AutoImageProcessor": "image_processing_prithvi.PrithviImageProcessor"}
CUSTOM_PIPELINES = {
    "geospatial-segmentation": {
        "impl": "pipeline_prithvi.GeospatialSegmentationPipeline",
        "pt": ["AutoModelForSemanticSegmentation"],
        "type": "image",
    }
}
CODE_KEYS = frozenset({"auto_map", "custom_pipelines"})

CONFIG_FILE, IMAGE_PROCESSOR_FILE = "config.json", "preprocessor_config.json"


def without_remote_code(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves the keys about code on the Hub out of the fields of a configuration.

    A class that itself came from the Hub, or that was registered by `register_for_auto_class`, keeps them:
    transformers writes its code and these keys into every folder it saves, and could not load the folder otherwise.

    Args:
        cls: the configuration or processor class.
        values: its fields by name.

    Returns:
        The fields to keep.
    """
    from_hub = cls.__module__.split(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME
    if from_hub or getattr(cls, "_auto_class", None) is not None:
        return dict(values)
    return {key: value for key, value in values.items() if key not in CODE_KEYS}


def source_files() -> list[Path]:
    """The Python files that travel to the Hub, sorted by name."""
    return sorted(Path(__file__).parent.glob("*_prithvi.py"))


def _with_remote_code(name: str, path: Path) -> bytes:
    """The content of a configuration file, completed by the keys that name the code."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if name == IMAGE_PROCESSOR_FILE:
        values["auto_map"] = IMAGE_PROCESSOR_AUTO_MAP
    else:
        values = {key: value for key, value in values.items() if key not in CODE_KEYS}
        values["auto_map"] = MODEL_AUTO_MAP
        if any(name.endswith("ForSemanticSegmentation") for name in values.get("architectures") or ()):
            values["custom_pipelines"] = CUSTOM_PIPELINES  # a backbone alone makes no maps
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()


def _additions(files: Mapping[str, Path]) -> list[CommitOperationAdd]:
    """The files of a commit, by their path in the repository, with the code."""
    code = {path.name: path for path in source_files()}
    return [
        CommitOperationAdd(
            path_in_repo=name,
            path_or_fileobj=_with_remote_code(name, path) if name in (CONFIG_FILE, IMAGE_PROCESSOR_FILE) else path,
        )
        for name, path in sorted({**files, **code}.items())
    ]


def commit_with_code(
    files: Mapping[str, Path], repo_id: str, revision: str | None, create_pr: bool, **kwargs: Any
) -> CommitInfo:
    """Makes one commit of the files, on a branch that is created when needed."""
    api = HfApi()
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, token=kwargs["token"], exist_ok=True)
    return api.create_commit(repo_id, operations=_additions(files), revision=revision, create_pr=create_pr, **kwargs)


def list_files(folder: Path, names: list[str] | None = None) -> dict[str, Path]:
    """Every file under a folder, or under some of its entries, by its path relative to it with forward slashes."""
    roots = [folder] if names is None else [folder / name for name in names]
    paths = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in paths}


class RemoteCodeMixin:
    """Makes `push_to_hub`, and `save_pretrained(..., push_to_hub=True)`, upload the code and the keys that name it.

    For subclasses of transformers' `PushToHubMixin`, to stand before it among the base classes. The object and the
    folder that it is saved in stay as they are; only what is uploaded is completed.
    """

    def _upload_modified_files(
        self,
        working_dir: str | Path,
        repo_id: str,
        files_timestamps: Mapping[str, float],
        commit_message: str | None = None,
        token: bool | str | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_description: str | None = None,
    ) -> CommitInfo:
        """Uploads what is new in a folder; transformers calls this after saving the object there.

        Args:
            working_dir: the folder.
            repo_id: the repository, which exists.
            files_timestamps: modification time of each entry of the folder before saving.
            commit_message: message of the commit, "Upload <class name>" by default.
            token: access token, by default the stored one.
            create_pr: whether to open a pull request instead of committing.
            revision: branch to commit to.
            commit_description: longer text of the commit.

        Returns:
            The commit.
        """
        folder = Path(working_dir)
        modified = [
            entry.name
            for entry in folder.iterdir()
            if entry.name not in files_timestamps or entry.stat().st_mtime > files_timestamps[entry.name]
        ]
        return commit_with_code(
            list_files(folder, modified),
            repo_id,
            revision,
            create_pr,
            token=token,
            commit_message=commit_message or f"Upload {type(self).__name__}",
            commit_description=commit_description,
        )


__all__ = [
    "CONFIG_FILE",
    "IMAGE_PROCESSOR_FILE",
    "RemoteCodeMixin",
    "commit_with_code",
    "list_files",
    "source_files",
    "without_remote_code",
]
