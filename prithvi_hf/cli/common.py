# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What several commands of `prithvi-hf` share: choosing a device, loading a model, explaining errors."""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives: commands add their parsers to it."""
# Messages of the library name arguments of functions; at a command line these are options.
_SHELL_WORDS = ((re.compile(r"\bresume=False\b"), "--no_resume"),)


def resolve_device(name: str) -> str:
    """Choose the device, or refuse one that is not there.

    Args:
        name: "auto" (a GPU where there is one), or any name that torch knows.

    Returns:
        The device.

    Raises:
        ValueError: If nothing can be computed there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}): try --device cpu.") from error
    return name


def check_model_source(name: str) -> None:
    """Refuse a folder that holds no model, and a path that is no folder; other names are asked from the Hub.

    Args:
        name: Folder or Hub id.

    Raises:
        ValueError: If it is neither.
    """
    if not name:
        raise ValueError("Expected the folder of a model or a Hub id (owner/name), found no model name: give one.")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{name} holds no model (no config.json): name a folder written by save_pretrained.")
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise ValueError(f"There is no model folder {name}, nor is that the form of a Hub id (owner/name).")


def load_image_processor(name: str) -> Any:
    """Load an image processor, which is a small file.

    Args:
        name: Folder or Hub id of the model.

    Returns:
        The processor.

    Raises:
        ValueError: If it cannot be loaded.
        OSError: If there is none.
    """
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

    check_model_source(name)
    with _loading(name):
        return PrithviImageProcessor.from_pretrained(name)


def load_model(name: str) -> tuple[Any, Any]:
    """Load a segmentation model and its image processor.

    Args:
        name: Folder or Hub id.

    Returns:
        Model and processor.

    Raises:
        ValueError: If they cannot be loaded, or the model is not fine-tuned.
        OSError: If a file is missing.
    """
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation

    image_processor = load_image_processor(name)
    with _loading(name):
        model, report = PrithviForSemanticSegmentation.from_pretrained(name, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(
            f"{name} is no fine-tuned segmentation model: {len(report['missing_keys'])} of its tensors are missing, "
            f"e.g. {min(report['missing_keys'])}. Fine-tune it first; a converted backbone cannot map by itself."
        )
    return model, image_processor


@contextmanager
def _loading(name: str) -> Iterator[None]:
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


def user_message(error: Exception) -> str | None:
    """Explain an error that the user can mend.

    Args:
        error: Anything that a command raised.

    Returns:
        The message, with what was noted about the error; None for a fault of the program, which is not hidden.
    """
    message = _message(error)
    return None if message is None else in_shell_words(" ".join([message.strip(), *notes_of(error)]))


def notes_of(error: BaseException) -> list[str]:
    """Give what was noted about an error on its way, such as what is kept of the work.

    Args:
        error: The error.

    Returns:
        Sentences in the words of the command line.
    """
    return [in_shell_words(note) for note in getattr(error, "__notes__", ())]


def in_shell_words(text: str) -> str:
    """Name options as the command line does, in place of arguments of Python functions.

    Args:
        text: A message.

    Returns:
        The message for users of the command.
    """
    for pattern, words in _SHELL_WORDS:
        text = pattern.sub(words, text)
    return text


def _message(error: Exception) -> str | None:
    """The bare message of an error that the user can mend, else None."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return f"out of memory ({error}): use a smaller --batch_size or a smaller scene."
    # By name: the class that a faulty configuration raises comes with a library that need not be loaded here.
    if isinstance(error, ValueError | OSError | ImportError) or "StrictDataclassError" in names:
        return str(error)
    return None


__all__ = [
    "Commands",
    "check_model_source",
    "in_shell_words",
    "load_image_processor",
    "load_model",
    "notes_of",
    "resolve_device",
    "user_message",
]
