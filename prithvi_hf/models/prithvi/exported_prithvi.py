# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Models that were exported to a graph, run by OpenVINO, ONNX Runtime or `torch.export` in place of our modules.

A folder of `prithvi-hf export` holds what `transformers.exporters.ExportedModel` saves: `export.json` names the files
of the graph, `config.json` is the model's own. The graph maps normalised bands to logits in float32; a runtime may
compute it in half precision by itself, so the precision is always set.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import ctypes
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils import _pytree
from transformers.modeling_outputs import ImageClassifierOutput, SemanticSegmenterOutput
from transformers.utils.hub import cached_file, cached_files

from .classification_prithvi import PrithviForImageClassification
from .configuration_prithvi import PrithviConfig
from .embeddings_prithvi import COORDINATE_ARGUMENTS, as_frames, encode_coordinates, pad_by_reflection
from .modeling_prithvi import PrithviForSemanticSegmentation, PrithviTaskModel
from .regression_prithvi import PixelRegressionOutput, PrithviForPixelRegression
from .remote_code_prithvi import EXPORT_FILE
from .sliding_window_prithvi import window_and_stride


FORMATS = {
    "openvino": ("openvino", ("openvino",), (torch.float32, torch.bfloat16, torch.float16)),
    "onnx": ("onnx", ("onnxruntime", "onnxscript"), (torch.float32,)),
    "torch_export": ("dynamo", (), (torch.float32,)),
}
"""Format to its name in transformers, the packages it needs, and the precisions that its runtime can compute in."""
FORMAT_NAMES = {theirs: ours for ours, (theirs, *_) in FORMATS.items()}
"""The format that `export.json` gives by its name in transformers."""
_CLASSES: dict[str, Any] = {
    kind.task: kind
    for kind in (PrithviForSemanticSegmentation, PrithviForPixelRegression, PrithviForImageClassification)
}
_HUB_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")
_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def check_packages(format: str) -> None:
    """Raise an ImportError that names the extra if the packages of a format are not installed.

    Raises:
        ImportError: They are not installed.
        ValueError: There is no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected format {', '.join(FORMATS)}, found {format!r}.")
    missing = [name for name in ("transformers.exporters", *FORMATS[format][1]) if find_spec(name) is None]
    if missing:
        extra = "openvino" if format == "openvino" else "onnx"
        raise ImportError(
            f"The format {format} needs {' and '.join(missing)}, which is not installed. Install the extra: "
            f"pip install 'prithvi_hf[{extra}]'."
        )
    # OpenVINO and NNCF report their use to their makers by this package, without asking, and do without it.
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))


def drop_signal_stack() -> None:
    """Have signals handled on the thread's own stack again.

    OpenVINO gives the thread that compiles another one and, where the lives of two models overlap, leaves it behind
    when its memory is gone: the next signal, such as that a worker ended, would be a segmentation fault.
    """
    if sys.platform == "linux":
        disable = (ctypes.c_size_t * 3)(0, 2, 0)  # stack_t: no address, SS_DISABLE, no size
        ctypes.CDLL(None).sigaltstack(disable, None)


@contextmanager
def _explain_graph(files: Iterable[str | Path]) -> Iterator[None]:
    """Say in one message that the files of a graph cannot be used, and keep what the runtime logs away."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except Exception as error:  # each runtime has its own for a file that is not a graph
        raise ValueError(
            f"Expected a whole graph in {', '.join(map(str, files))}, found none that can be used "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}). Copy or export it again, or "
            "try another --dtype."
        ) from error
    finally:
        logging.disable(before)


class PrithviExportedModel(PrithviTaskModel):
    """A folder of `prithvi-hf export` as a model: `predict_scene`, the evaluation and the pipelines take it.

    It predicts and cannot be trained. `to(torch.bfloat16)` chooses the precision that OpenVINO computes in; what goes
    in and comes out stays float32. The graph is compiled at the first call after a change, with as many threads as
    torch has (`torch.set_num_threads`).

    Args:
        config: The configuration of the model that was exported.
        components: What `export.json` names, `{name: ExportedComponent}`.
        manifest: The content of `export.json`.
        files: The files of the graph.

    Attributes:
        task: That of the model that was exported.
        export_format: `"openvino"`, `"onnx"` or `"torch_export"`.
        fixed_size: Height and width that the graph takes, or None where it takes any; smaller images are padded by
            reflection.
    """

    segmentation_loss = PrithviForSemanticSegmentation.segmentation_loss
    classification_loss = PrithviForImageClassification.classification_loss

    def __init__(
        self, config: PrithviConfig, components: dict[str, Any], manifest: dict[str, Any], files: list[Path]
    ) -> None:
        super().__init__(config)
        self.components, self.manifest, self.files = components, manifest, files
        self.export_format = FORMAT_NAMES[manifest["export_format"]]
        self.task = _CLASSES[manifest["prithvi_hf"]["task"]].task
        size = manifest["prithvi_hf"]["fixed_size"]
        self.fixed_size = None if size is None else (size[0], size[1])
        self._device, self._precision = torch.device("cpu"), torch.float32
        self._runners: dict[tuple[int, ...], Any] = {}
        self.eval()

    @classmethod
    def is_at(cls, name: str | os.PathLike, *args: Any, **kwargs: Any) -> bool:
        """Whether a folder or a repository on the Hub holds an exported model; arguments are of `from_pretrained`."""
        options = {key: value for key, value in kwargs.items() if key in _HUB_OPTIONS and value is not None}
        return cached_file(name, EXPORT_FILE, _raise_exceptions_for_missing_entries=False, **options) is not None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | os.PathLike,
        *,
        dtype: torch.dtype | str | None = None,
        trust_remote_code: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load an exported folder, or one on the Hub.

        Args:
            name: The folder or Hub id.
            dtype: Precision to compute in, float32 by default; OpenVINO alone has others.
            trust_remote_code: Whether a graph of `torch_export` may be loaded: it is a pickle, which can run code.
            output_loading_info: Whether to return a dictionary about the weights as well, as other models do.
            kwargs: Of the Hub: `revision`, `token`, `cache_dir`, `subfolder`, `local_files_only`, `force_download`.

        Raises:
            ImportError, ValueError: The runtime is not installed; the folder holds no model that may be loaded.
        """
        options: Any = {key: kwargs[key] for key in _HUB_OPTIONS if kwargs.get(key) is not None}
        path = Path(cast(str, cached_file(name, EXPORT_FILE, **options)))
        config = PrithviConfig.from_pretrained(name, **options)
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            [(key, entry)] = manifest["components"].items()
            program, metadata = Path(entry["file"]).name, dict(entry["metadata"])
            model = cls(config, {}, manifest, [])
            model.check_config(metadata["kwargs"])
            # Theirs could name modules to import.
            metadata["out_spec"] = _pytree.treespec_dumps(_pytree.tree_structure({"logits": 0}))
            metadata["out_constants"] = []
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"Expected {path} to be what `prithvi-hf export` wrote, found something else or a damaged file "
                f"({type(error).__name__}: {error}). Export the model again."
            ) from error
        check_packages(model.export_format)
        from transformers.exporters.auto import get_exporter_class
        from transformers.exporters.base import ExportedComponent
        from transformers.exporters.metadata import ExportMetadata

        exporter = get_exporter_class(manifest["export_format"])
        if exporter.requires_trust_remote_code and not trust_remote_code:
            raise ValueError(
                f"The graph in {name} is a pickle of torch.export, which could run code when it is loaded. Where you "
                "trust who made it, pass trust_remote_code=True (--trust_remote_code); or export to openvino or onnx."
            )
        wanted = exporter.program_files(program)
        with _explain_graph([f"{name}/{file}" for file in wanted]):
            model.files = [Path(file) for file in cast(list[str], cached_files(name, wanted, **options))]
            # OpenVINO tries the formats of all frameworks for a file that is not XML, each with messages.
            if model.export_format == "openvino" and not model.files[0].read_bytes().startswith(b"<?xml"):
                raise ValueError("not XML")
            loaded = exporter.load_program(path.parent / program)
            component = ExportedComponent(loaded, ExportMetadata.from_dict(metadata))
        model.components[key] = component
        if dtype not in (None, "auto"):
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return (model, {"missing_keys": set(), "mismatched_keys": set()}) if output_loading_info else model

    def check_config(self, traced: Mapping[str, Any]) -> None:
        """Refuse a configuration of another model than the one that was `traced` with these inputs."""
        names = {"pixel_values", *map(COORDINATE_ARGUMENTS.__getitem__, self.config.coords_encoding)}
        size, _ = window_and_stride(self.config)
        # Small tiles are traced four times as large, see `trace_graph`.
        shapes = [[self.config.num_channels, self.config.num_frames, *(n * side for side in size)] for n in (1, 4)]
        others = {kind.__name__ for task, kind in _CLASSES.items() if task != self.task}
        if (
            traced.keys() != names
            or traced["pixel_values"]["shape"][1:] not in shapes
            or self.fixed_size not in (None, size)
            or others.intersection(self.config.architectures or ())
        ):
            raise ValueError("config.json is of another model")

    @property
    def runtime(self) -> str:
        """What computes the graph, and its version."""
        package = (*FORMATS[self.export_format][1], "torch")[0]
        return f"{package} {version(package)}"

    @property
    def device(self) -> torch.device:
        """Where inputs belong and outputs come from."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the graph is computed in."""
        return self._precision

    def to(self, *args: Any, **kwargs: Any) -> "PrithviExportedModel":  # type: ignore[override]
        """Choose device and precision, as `torch.nn.Module.to` takes them.

        Raises:
            ValueError: The runtime cannot compute there or so.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        device, dtype = device or self._device, dtype or self._precision
        precisions = FORMATS[self.export_format][2]
        if dtype not in precisions:
            names = " or ".join(str(one).removeprefix("torch.") for one in precisions)
            raise ValueError(
                f"Expected dtype {names} for a model exported to {self.export_format}, found "
                f"{str(dtype).removeprefix('torch.')}. Leave --dtype out, or export to openvino, which has bfloat16."
            )
        if device.type != "cpu" and not (self.export_format == "onnx" and device.type == "cuda"):
            raise ValueError(
                f"Expected device cpu for a model exported to {self.export_format}, found {device}. Give --device "
                "cpu, or use the model that was exported."
            )
        if (device, dtype) != (self._device, self._precision):
            self._device, self._precision, self._runners = device, dtype, {}
        return self

    def __deepcopy__(self, memo: dict) -> "PrithviExportedModel":
        """Copy the model; the graph itself, which never changes, is shared."""
        copied = type(self)(self.config, self.components, self.manifest, self.files)
        return copied.to(self._device, self._precision)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Give the bytes of the graph's files, and what computes it: all that decides the results."""
        tensors = {self.runtime: torch.empty(0, dtype=self.dtype)}
        for file in self.files:
            tensors[file.name] = torch.from_file(str(file), size=file.stat().st_size, dtype=torch.uint8)
        return tensors

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save the graph, the configuration and `export.json` into a folder."""
        from transformers.exporters.base import ExportedModel

        if self.export_format == "torch_export":  # whose writer ends the process where the disk is full
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=str(save_directory)) as probe:
                for component in self.components.values():
                    buffer = io.BytesIO()
                    torch.export.save(component.program, buffer)
                    probe.write(buffer.getbuffer())
        ExportedModel(self.components, self.manifest["export_format"], self.config).save_pretrained(
            str(save_directory)
        )
        file = Path(save_directory, EXPORT_FILE)
        manifest = {**json.loads(file.read_text(encoding="utf-8")), "prithvi_hf": self.manifest["prithvi_hf"]}
        file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict, without a loss; inputs and outputs are those of the model that was exported.

        Raises:
            ValueError: The images are larger than the graph's fixed size, or have other bands or frames.
        """
        images = as_frames(pixel_values, self.config.num_channels).to(self._device, torch.float32)
        height, width = images.shape[-2:]
        if images.shape[2] != self.config.num_frames:
            raise ValueError(f"Expected {self.config.num_frames} frame(s) in dimension 2, found {images.shape[2]}.")
        if self.fixed_size is not None:
            if height > self.fixed_size[0] or width > self.fixed_size[1]:
                raise ValueError(
                    f"Expected images of at most {self.fixed_size} pixels, which this graph was exported for, found "
                    f"{(height, width)}. Give --window {min(self.fixed_size)}."
                )
            images, _ = pad_by_reflection(images, self.fixed_size)
        inputs = {"pixel_values": images.contiguous()}
        given = {"temporal_coords": temporal_coords, "location_coords": location_coords}
        for name in self.config.coords_encoding:
            argument = COORDINATE_ARGUMENTS[name]
            coords = given[argument]
            if coords is None:  # as where they are not known
                shape = (len(images), self.config.num_frames, 2) if name == "time" else (len(images), 2)
                coords = torch.full(shape, torch.nan)
            inputs[argument] = encode_coordinates(coords, self.config.hidden_size).to(self._device).contiguous()
        [component] = self.components.values()
        # In the order of the trace, in which torch.export takes them.
        ordered = {name: inputs[name] for name in component.metadata.kwargs}
        # A runner for images like the first ones, as most are, and under () one for all others.
        key = tuple(images.shape)
        if key not in self._runners:
            key = () if self._runners else key
        if key not in self._runners:
            with _explain_graph(self.files):
                self._runners[key] = self._compile(component, ordered if key else {})
        with torch.no_grad():
            logits = self._runners[key](**ordered)["logits"]
        count = 1 if self.task == "regression" else self.config.num_labels
        if logits.shape[1] != count:
            raise ValueError(
                f"Expected a graph of {count} class(es) or values, as config.json says, found one of "
                f"{logits.shape[1]}: they are of different models. Copy or export both again."
            )
        if self.task == "classification":
            values = self.restore_unit(logits) if self.config.problem_type == "regression" else logits
            return ImageClassifierOutput(logits=values)
        logits = logits[..., :height, :width]
        if self.task == "regression":
            return PixelRegressionOutput(predicted_values=self.restore_unit(logits[:, 0]))
        return SemanticSegmenterOutput(logits=logits)

    def count_loss_items(self, labels: torch.Tensor) -> torch.Tensor:
        """Count what the loss of labels is divided by, as the model that was exported does."""
        return _CLASSES[self.task].count_loss_items(self, labels)

    def _compile(self, component: Any, inputs: dict[str, torch.Tensor]) -> Any:
        """Have the runtime compile the graph for device, precision and threads, and the sizes of `inputs` if any."""
        from transformers.exporters.auto import get_runner_class

        if self.export_format == "torch_export":
            # Its guards want more than one image of a batch, which the operations do not.
            return component.program.module(check_guards=False).__call__  # not the module: it would be one of ours
        options: dict[str, Any] = {}
        program = component.program
        if self.export_format == "openvino":
            if inputs:  # with sizes that it knows OpenVINO spares copies of the largest maps, a tenth of the time
                program = program.clone()
                program.reshape({name: list(tensor.shape) for name, tensor in inputs.items()})
            # Its own default is bfloat16 on machines with AMX. Pinned threads of two processes share the same cores.
            options["config"] = {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[self._precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,
            }
        elif self.export_format == "onnx":
            # Not an import: transformers would ask for it of everyone who loads this file from the Hub.
            options["session_options"] = import_module("onnxruntime").SessionOptions()
            options["session_options"].intra_op_num_threads = torch.get_num_threads()
        runner = get_runner_class(self.manifest["export_format"])
        compiled = runner.from_program(program, component.metadata, self._device, **options)
        drop_signal_stack()
        return compiled


__all__ = ["PrithviExportedModel"]
