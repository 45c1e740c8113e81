# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading original checkpoints: from a file or the Hub, without running what a pickle may hold."""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
import torch
from safetensors.torch import load_file


_NUMBER_TYPES = ["bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))]
_NUMBER_TYPES += ["float16", "float32", "float64"]
_RECONSTRUCT_SCALAR = np.float64(0).__reduce__()[0]
# What torch does not unpickle by itself and mmcv's `meta` holds all the same: numpy's numbers, such as a best score.
# They are made by one function, under its names of numpy 1 and numpy 2, of data types that hold nothing but numbers.
_SAFE_GLOBALS = [
    (_RECONSTRUCT_SCALAR, "numpy.core.multiarray.scalar"),
    (_RECONSTRUCT_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in _NUMBER_TYPES),
]
_HUB_FORM = "hf://owner/name/file, hf://owner/name@revision/file, or without a file where there is only one"


@dataclass
class Checkpoint:
    """What an original checkpoint file holds.

    Attributes:
        source (`str`): The source as it was given and, on the Hub without a file, the file that was found.
        state_dict (`dict[str, torch.Tensor]`): Tensors under their original names.
        averaging (`list[str]`): Names of the buffers of mmcv's `EMAHook`, which are not in `state_dict`.
        class_names (`list[str]`, *optional*): Names that mmsegmentation stored with the weights.
        class_colors (`list[str]`, *optional*): Their colours, "#rrggbb".
    """

    source: str
    state_dict: dict[str, torch.Tensor]
    averaging: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    class_colors: list[str] | None = None


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read an original checkpoint.

    A leading `module.` of every name, which data-parallel training leaves, is taken off. mmcv's `EMAHook` keeps a
    second copy of every weight as `ema_<name with underscores>`. When it saves, the averaged weights, those that were
    evaluated, stand under the plain names and the others in the copies; so the copies are left out.

    Args:
        source (`str` or `Path`): A `.pt`, `.pth` or `.safetensors` file, or `hf://owner/name/file` on the Hub, also
            with `@revision` after the name; without a file the only `.pt` or `.pth` of the repository.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint, or needs more of pickle than tensors, texts and numbers.
    """
    source, path = _local_file(str(source))
    content = _read(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    state_dict = _find_state_dict(content, path)
    copies = {f"ema_{name.replace('.', '_')}" for name in state_dict}
    return Checkpoint(
        source=source,
        state_dict={name: value for name, value in state_dict.items() if name not in copies},
        averaging=[name for name in state_dict if name in copies],
        **_read_classes(meta),
    )


def load_original_state_dict(source: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of an original checkpoint; see [`load_checkpoint`]."""
    return load_checkpoint(source).state_dict


def _read(path: Path) -> Any:
    """What a checkpoint file holds."""
    _check_sums(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # advice to torch's developers
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no checkpoint the loaders raise almost anything, a KeyError too
        raise ValueError(
            f"Expected {path} to be a checkpoint of plain tensors, found a file that cannot be loaded safely "
            f"({_load_failure(error, path)}). A damaged file is mended by a new download. A pickle with other objects "
            "could run code and is refused: re-save its state dict with torch.save, or as safetensors, where you "
            "trust it."
        ) from error


def _check_sums(path: Path) -> None:
    """Raise where a part of the file is not what was written: torch stores checksums and does not look at them."""
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(
            f"Expected {path} to be whole, found another checksum than the stored one in its part {damaged}. Download "
            "or copy the file again; one that was written without checksums must be re-saved with torch.save."
        )


def _load_failure(error: Exception, path: Path) -> str:
    """What a loader found, in one sentence, without torch's advice on how to load such a file all the same."""
    text = str(error)
    if not isinstance(error, UnpicklingError):
        return f"{type(error).__name__}: {(text.strip().splitlines() or ['no reason given'])[0]}"
    named = re.search(r"GLOBAL (\S+)", text)
    names = [named[1]] if named else _pickled_names(path)
    if names:
        return f"its pickle asks for {', '.join(names[:4])}"
    return "its pickle holds other instructions than those that make tensors"


def _pickled_names(path: Path) -> list[str]:
    """The Python objects that a pickle of a protocol that torch does not know asks for; nothing of it is run."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return _names_in(file)
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return [found for name in pickles for found in _names_in(archive.open(name))]


def _names_in(file: BinaryIO) -> list[str]:
    """Module and name of every object that one pickle asks for."""
    found, texts = [], []
    with suppress(Exception):  # a damaged pickle breaks off with almost anything; what was found up to there counts
        for instruction, argument, _ in pickletools.genops(file):
            if instruction.name == "GLOBAL":
                found.append(argument.replace(" ", "."))
            elif instruction.name == "STACK_GLOBAL":  # takes the two texts before it
                found.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    return list(dict.fromkeys(found))


def _local_file(source: str) -> tuple[str, Path]:
    """A source with its file's name, and its local path, downloaded first where it names a file on the Hub."""
    if source.startswith("hf://"):
        return _hub_file(source)
    if re.match(r"(https?|ftp|s3|gs):/", source, re.IGNORECASE):
        raise ValueError(
            f"Expected a checkpoint file of this machine or {_HUB_FORM}, found the address {source}. Download the "
            "file first, or name one of the Hub by hf://."
        )
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".pt", ".pth", ".safetensors"))
        raise IsADirectoryError(
            f"Expected a checkpoint file, found the folder {path}. Name a file in it"
            f"{': ' + ', '.join(found[:6]) if found else ', which holds no .pt, .pth or .safetensors'}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint file, found none at {path}.")
    return source, path


def _hub_file(source: str) -> tuple[str, Path]:
    """Download a file of the Hub; an unnamed one is found if it is the only checkpoint of its repository."""
    from huggingface_hub import hf_hub_download

    owner, _, rest = source.removeprefix("hf://").partition("/")
    repository, _, filename = rest.rstrip("/").partition("/")
    name, separator, revision = repository.partition("@")
    if not (owner and name) or bool(separator) != bool(revision):
        raise ValueError(f"Expected {_HUB_FORM}, found {source!r}.")
    repo_id, options = f"{owner}/{name}", {"revision": unquote(revision) or None}
    if not filename:
        filename = _only_checkpoint(source, _list_files(source, repo_id, **options))
        source = f"{source.rstrip('/')}/{filename}"
    return source, Path(hf_hub_download(repo_id, filename, **options))


def _list_files(source: str, repo_id: str, revision: str | None) -> list[str]:
    """The files of a repository; without a connection the file must be named, it may lie in the cache."""
    from huggingface_hub import list_repo_files

    try:
        return list_repo_files(repo_id, revision=revision)
    except (OSError, ValueError):
        raise  # the Hub's answer, or none allowed: the message says which
    except Exception as error:  # of a lost connection, by the HTTP library of huggingface_hub's version
        raise ConnectionError(
            f"Expected to list the files of {source}, found no connection to the Hub ({error}). A file that was "
            "downloaded before is found when it is named: hf://owner/name/file."
        ) from error


def _only_checkpoint(source: str, files: Sequence[str]) -> str:
    """The one original checkpoint among a repository's files."""
    found = [name for name in files if name.lower().endswith((".pt", ".pth"))]
    if len(found) != 1:
        others = found or sorted(files)
        raise ValueError(
            f"Expected {source} to hold exactly one .pt or .pth file, found {len(found)}"
            f"{' among' if not found else ''}: {', '.join(others) or 'no file at all'}. Name the file: "
            f"{source.rstrip('/')}/FILE."
        )
    return found[0]


def _find_state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict inside what a checkpoint file holds."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"Expected {path} to hold a state dict, found {type(content).__name__}.")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"Expected {path} to hold tensors by name, found other values under {others[:5]}.")
    names = {name: str(name).removeprefix("module.") for name in content}
    if len(set(names.values())) < len(names):
        raise ValueError(
            f"Expected {path} to hold each tensor once, found some both with and without a leading 'module.'."
        )
    return {names[name]: value for name, value in content.items()}


def _read_classes(meta: Any) -> dict[str, list[str]]:
    """Class names and colours in mmsegmentation's `meta`; other than distinct texts are no names.

    The original's data set class counts its classes (0, 1) where a configuration names none.
    """
    names = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        return {}
    if len(set(names)) < len(names):
        return {}
    palette = meta.get("PALETTE")
    if not isinstance(palette, list | tuple) or len(palette) != len(names) or not all(map(_is_color, palette)):
        return {"class_names": list(names)}
    return {"class_names": list(names), "class_colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in palette]}


def _is_color(value: Any) -> bool:
    """Whether a value is red, green and blue as bytes."""
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)


__all__ = ["Checkpoint", "load_checkpoint", "load_original_state_dict"]
