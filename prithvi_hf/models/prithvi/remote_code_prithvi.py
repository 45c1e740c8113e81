# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pushing to the Hub together with the code, so that a process without prithvi_hf can load what was pushed.

Two keys tell transformers that a repository brings code: `auto_map` names the class behind each Auto class, and
`custom_pipelines` the pipeline behind a task. They are written into what goes to the Hub and into nothing else: a
folder with `custom_pipelines` needs `trust_remote_code=True` even where prithvi_hf is installed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, PushToHubMixin


if TYPE_CHECKING:
    # Never executed, but read: transformers finds the files of a class by the relative imports written in them. By
    # these lines each file leads to all of them, so that a copy from the Hub is complete and can be pushed again.
    from .backbone_prithvi import PrithviBackbone  # noqa: F401
    from .classification_prithvi import PrithviForImageClassification  # noqa: F401
    from .configuration_prithvi import PrithviConfig  # noqa: F401
    from .exported_prithvi import PrithviExportedModel  # noqa: F401
    from .image_processing_prithvi import PrithviImageProcessor  # noqa: F401
    from .modeling_prithvi import PrithviForSemanticSegmentation  # noqa: F401
    from .pipeline_prithvi import GeospatialSegmentationPipeline  # noqa: F401
    from .pretraining_prithvi import PrithviForPreTraining  # noqa: F401
    from .regression_prithvi import PrithviForPixelRegression  # noqa: F401


MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_prithvi.PrithviConfig",
    "AutoBackbone": "backbone_prithvi.PrithviBackbone",
    "AutoModel": "modeling_prithvi.PrithviModel",
    "AutoModelForImageClassification": "classification_prithvi.PrithviForImageClassification",
    "AutoModelForPreTraining": "pretraining_prithvi.PrithviForPreTraining",
    "AutoModelForSemanticSegmentation": "modeling_prithvi.PrithviForSemanticSegmentation",
}
REGRESSION_AUTO_MAP = {"AutoModel": "regression_prithvi.PrithviForPixelRegression"}
"""What `AutoModel` is in a repository of a regression model: transformers has no Auto class for values per pixel."""
IMAGE_PROCESSOR_AUTO_MAP = {"AutoImageProcessor": "image_processing_prithvi.PrithviImageProcessor"}
_TASKS = (  # the end of a model's name, its task, its Auto class
    ("ForSemanticSegmentation", "Segmentation", "AutoModelForSemanticSegmentation"),
    ("ForPixelRegression", "Regression", "AutoModel"),
    ("ForImageClassification", "Classification", "AutoModelForImageClassification"),
)
CUSTOM_PIPELINES = {
    f"geospatial-{task.lower()}": {
        "impl": f"pipeline_prithvi.Geospatial{task}Pipeline",
        "pt": [auto_class],
        "type": "image",
    }
    for _, task, auto_class in _TASKS
}
CODE_KEYS = frozenset({"auto_map", "custom_pipelines"})
CONFIG_FILE, IMAGE_PROCESSOR_FILE = "config.json", "preprocessor_config.json"
EXPORT_FILE = "export.json"  # of a folder that holds a graph in place of weights


def source_files() -> list[Path]:
    """List the Python files that travel to the Hub, sorted by name."""
    return sorted(Path(__file__).parent.glob("*_prithvi.py"))


def without_remote_code(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the keys about code on the Hub out of the fields of a configuration or a processor of class `cls`.

    A class that itself came from the Hub, or that was registered by `register_for_auto_class`, keeps them:
    transformers writes its code and these keys into every folder it saves, and could not load the folder otherwise.
    """
    from_hub = cls.__module__.split(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME
    if from_hub or getattr(cls, "_auto_class", None) is not None:
        return dict(values)
    return {key: value for key, value in values.items() if key not in CODE_KEYS}


def list_files(folder: Path, names: list[str] | None = None) -> dict[str, Path]:
    """List every file under a folder, or under some of its entries, by its path there, with forward slashes."""
    roots = [folder] if names is None else [folder / name for name in names]
    paths = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def commit_with_code(
    files: Mapping[str, Path],
    repo_id: str,
    revision: str | None,
    create_pr: bool,
    removed: Sequence[str] = (),
    **kwargs: Any,
) -> CommitInfo:
    """Make one commit of files (by their path in the repository) and the code, on a branch that is made when needed.

    The configuration files are completed by the keys that name the code, the paths in `removed` are deleted; `kwargs`
    are those of `HfApi.create_commit`, the token among them.
    """
    operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in removed]
    for name, path in sorted({**files, **{source.name: source for source in source_files()}}.items()):
        content: Path | bytes = path
        if name in (CONFIG_FILE, IMAGE_PROCESSOR_FILE):
            values = json.loads(path.read_text(encoding="utf-8"))
            if name == IMAGE_PROCESSOR_FILE:
                values["auto_map"] = IMAGE_PROCESSOR_AUTO_MAP
            else:
                values = {key: value for key, value in values.items() if key not in CODE_KEYS}
                values["auto_map"] = MODEL_AUTO_MAP
                for (ending, *_), task in zip(_TASKS, CUSTOM_PIPELINES, strict=True):  # a backbone alone has none
                    if any(name.endswith(ending) for name in values.get("architectures") or ()):
                        values["custom_pipelines"] = {task: CUSTOM_PIPELINES[task]}
                        if ending == "ForPixelRegression":
                            values["auto_map"] = MODEL_AUTO_MAP | REGRESSION_AUTO_MAP
            content = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
    api = HfApi()
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, token=kwargs["token"], exist_ok=True)
    return api.create_commit(repo_id, operations=operations, revision=revision, create_pr=create_pr, **kwargs)


class RemoteCodeMixin(PushToHubMixin):
    """Make `push_to_hub`, and `save_pretrained(..., push_to_hub=True)`, upload the code and the keys that name it.

    It stands before transformers' own class among the base classes. The object and the folder that it is saved in stay
    as they are; only what is uploaded is completed.
    """

    def _upload_modified_files(
        self,
        working_dir: str | os.PathLike,
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        token: bool | str | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_description: str | None = None,
    ) -> CommitInfo:
        """Upload what is new in a folder; transformers calls this after saving the object there."""
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
