# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What commands of `prithvi-hf` share: adding a parser, choosing a device, loading a model, explaining errors."""

import argparse
import gc
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeAlias

from prithvi_hf import IS_COMMAND
from prithvi_hf.cores import CORES


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.scenes.predict_scenes import ProcessGroup, Work
    from prithvi_hf.scenes.scene_list import SceneEntry
    from prithvi_hf.training.recipe import TrainingRecipe

BAND_OPTIONS: dict[str, dict[str, Any]] = {
    "--band_indices": {
        "nargs": "+",
        "type": int,
        "metavar": "POSITION",
        "help": "0-based positions of the model's bands in a file; like the next two options it overrides the "
        "descriptions in files",
    },
    "--band_map": {
        "nargs": "+",
        "metavar": "BAND=NAME",
        "help": "which band of a file to use for a band: its description, its code or its 0-based position, e.g. "
        "NIR_NARROW=B08",
    },
    "--band_names": {"nargs": "+", "metavar": "NAME", "help": "names of all bands of a file, in its order"},
}
"""Options of every command that reads images: where the bands are."""

TRUST_OPTION: dict[str, Any] = {
    "action": "store_true",
    "help": "load an exported model of the format torch_export, a pickle, which can run code: only if you trust it",
}
"""What `--trust_remote_code` is in every command that has it."""

# The folders of an absolute path, not of an address.
_FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^\s/:,;'\"]+/)+")
SUMMARY = "summary.json"
"""What became of a list of scenes, in the folder of the outputs."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives: commands add their parsers to it."""


def add_command(
    commands: Commands, name: str, text: str, note: str = "", epilog: str | None = None
) -> argparse.ArgumentParser:
    """Add a command: `text` in the list of commands and, as a sentence with a note after it, above its options."""
    raw: dict[str, Any] = {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}
    description = f"{text[0].upper()}{text[1:]}.{note}"
    return commands.add_parser(name, help=text, description=description, **(raw if epilog else {}))


@contextmanager
def import_quickly() -> Iterator[None]:
    """Import torch and transformers without garbage collections, a third of the time until the process ends.

    They would look through a million new objects again and again, and none of them is garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if IS_COMMAND:  # a process that only calls `main` may have garbage of its own
            gc.freeze()  # later collections, the one at the end too, leave out what is there now


def run_list(
    options: argparse.Namespace,
    scenes: "Sequence[SceneEntry]",
    work: "Work",
    group: "ProcessGroup",
    split: bool = False,
) -> int:
    """Do the work of a list of scenes, see `run_scenes`, and tell of it; returns the exit status: 1 if one failed."""
    from prithvi_hf.scenes.predict_scenes import FAILED, Outcome, format_outcomes, run_scenes

    def tell(number: int, outcome: Outcome) -> None:
        if not options.quiet and (outcome.process is not None or group.is_main):
            reason = f": {outcome.reason}" if outcome.reason else ""
            line = f"[{number + 1}/{len(scenes)}] {outcome.name} {outcome.status}, {outcome.seconds:.1f} s{reason}"
            print(line, file=sys.stderr)

    summary = Path(options.output_dir) / SUMMARY
    outcomes = run_scenes(scenes, work, group, summary, split=split, on_outcome=tell)
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    if group.is_main and not options.quiet:
        print(f"{format_outcomes(outcomes)}\nsummary written to {summary}")
    if group.is_main and failed:
        message = f"{failed} of {len(outcomes)} scenes failed, {summary} says why"
        print(f"prithvi-hf {options.command}: error: {message}", file=sys.stderr)
    return 1 if failed else 0


def resolve_device(name: str, model: str | None = None) -> str:
    """Choose the device: the name as given if it can be used here; for "auto" a GPU where there is one.

    A `model` that was exported stays on the CPU for "auto".
    """
    import torch

    from prithvi_hf.models.prithvi.configuration_prithvi import is_exported

    # torch counts the cores of the machine, a container may have fewer.
    torch.set_num_threads(min(torch.get_num_threads(), CORES))
    if name == "auto":
        return "cuda" if torch.cuda.is_available() and not (model and is_exported(model)) else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}): try --device cpu.") from error
    return name


def load_image_processor(name: str) -> "PrithviImageProcessor":
    """Load the image processor of a model, which is a small file."""
    from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

    check_model_source(name)
    with explain_loading(name):
        return PrithviImageProcessor.from_pretrained(name)


def load_model(
    name: str, tasks: Sequence[str] = ("segmentation", "regression"), trust_remote_code: bool = False
) -> "tuple[Any, PrithviImageProcessor]":
    """Load a fine-tuned model for one of `tasks` and its image processor; the configuration tells its class.

    An exported graph that is a pickle is loaded only with `trust_remote_code`.
    """
    import prithvi_hf
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviTaskModel, unwrap_model

    image_processor = load_image_processor(name)
    with explain_loading(name):
        architectures = prithvi_hf.PrithviConfig.from_pretrained(name).architectures or ()
        kind: Any = prithvi_hf.PrithviForSemanticSegmentation  # also of a backbone, which it refuses
        for architecture in architectures:
            found = getattr(prithvi_hf, architecture, None)
            if isinstance(found, type) and issubclass(found, PrithviTaskModel):
                kind = found
        model = unwrap_model(kind.from_pretrained(name, trust_remote_code=trust_remote_code), tasks)
    image_processor.check_config(model.config)
    return model, image_processor


def make_labelled_recipe(
    options: argparse.Namespace, configs: "Sequence[str | Path]", folder: str, model: str, **own: Any
) -> "TrainingRecipe":
    """Read the recipe of the labelled chips that a command measures a model on.

    Args:
        options: of the command: `data_dir`, `device`, `no_check` and `quiet`.
        configs: recipes, later ones win.
        folder: an empty one, which the trainer insists on.
        model: the model, which may need another device than "auto" chooses.
        own: further options of the recipe, which win; None leaves one out.
    """
    from prithvi_hf.training.evaluation import make_evaluation_recipe

    values: dict[str, Any] = {
        "data_dir": options.data_dir,
        "use_cpu": "true" if resolve_device(options.device, model) == "cpu" else "false",
        "check_data": "false" if options.no_check else None,
        "disable_tqdm": "true" if options.quiet else None,
    }
    return make_evaluation_recipe(configs, folder, **{**values, **own})


def load_whole_model(kind: Any, name: str, remedy: str, **fields: Any) -> Any:
    """Load a model of a class, with some fields of its configuration replaced, and refuse one that lacks weights."""
    from prithvi_hf.models.prithvi.configuration_prithvi import check_has_weights

    check_has_weights(name)
    with explain_loading(name):
        model, info = kind.from_pretrained(name, output_loading_info=True, **fields)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"Expected the weights of a {kind.__name__} in {name}, found none for {len(missing)} tensors, e.g. "
            f"{missing[0]}. {remedy}"
        )
    return model


@contextmanager
def explain_loading(name: str) -> Iterator[None]:
    """Say in one message what is wrong with a model, and keep the library's reports of it away."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a report of missing tensors would come before the one message that names them
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"The weights of {name} are a pickle that needs more than tensors, which could run code and is refused: "
            "save the model as safetensors (save_pretrained) where you trust it."
        ) from error
    except (StrictDataclassError, SafetensorError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).strip().replace("\n", " ")
        raise ValueError(f"The model {name} cannot be loaded ({type(error).__name__}: {reason}).") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def user_message(error: Exception, with_notes: bool = True) -> str | None:
    """Explain an error that the user can fix, with its notes; None for a fault of the program, which is not hidden."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        message = f"out of memory ({error}): use a smaller --batch_size or a smaller scene."
    # By name: the class that a faulty configuration raises comes with a library that need not be loaded here.
    elif isinstance(error, ValueError | OSError | ImportError) or "StrictDataclassError" in names:
        message = str(error)
    else:
        return None
    message = " ".join([message.strip(), *getattr(error, "__notes__", ())]) if with_notes else message.strip()
    # Of a file or a configuration with absurd contents the beginning and the remedy at the end are enough.
    return message if len(message) <= 4000 else f"{message[:2000]} ... {message[-1500:]}"


def remote_message(error: Exception, names: Mapping[str, str] | None = None) -> str | None:
    """Explain an error to who asked from another machine, without a folder of this one; None as `user_message`.

    Args:
        error: What went wrong; its notes, for who runs the command, are left out.
        names: What stands for some paths, such as what a visitor calls a file; others lose their folders.
    """
    message = user_message(error, with_notes=False)
    if message is None:
        return None
    for path in sorted(names or {}, key=len, reverse=True):
        message = message.replace(path, (names or {})[path])
    return _FOLDERS.sub("", message)
