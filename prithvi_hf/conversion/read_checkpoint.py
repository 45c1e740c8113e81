# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading original checkpoints: from a file or the Hub, without running what a pickle may hold."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from urllib.parse import unquote

import numpy as np
import torch
from safetensors.torch import load_file


_NUMBER_TYPES = ["bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))]
_NUMBER_TYPES += ["float16", "float32", "float64"]
_RECONSTRUCT_SCALAR: Any = np.float64(0).__reduce__()[0]
# What torch does not unpickle by itself and mmcv's `meta` holds all the same: numpy's numbers, such as a best score.
# They are made by one function, under its names of numpy 1 and numpy 2, of data types that hold nothing but numbers.
_SAFE_GLOBALS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_RECONSTRUCT_SCALAR, "numpy.core.multiarray.scalar"),
    (_RECONSTRUCT_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in _NUMBER_TYPES),
]
_HUB_FORM = "hf://owner/name/file, hf://owner/name@revision/file, or without a file where there is only one"


@dataclass
class Checkpoint:
    """What an original checkpoint file holds."""

    source: str  # as it was given, and on the Hub without a file the one that was found
    state_dict: dict[str, torch.Tensor]  # under the original names
    averaging: list[str] = field(default_factory=list)  # names of mmcv's EMAHook, which are not in state_dict
    class_names: list[str] | None = None  # that mmsegmentation stored with the weights
    class_colors: list[str] | None = None  # "#rrggbb"


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read an original checkpoint.

    A leading `module.` of every name, which data-parallel training leaves, is taken off. mmcv's `EMAHook` keeps a
    second copy of every weight as `ema_<name with underscores>`. When it saves, the averaged weights, those that were
    evaluated, stand under the plain names and the others in the copies; so the copies are left out.
    """
    source, path = _find_file(str(source))
    content = _load(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"Expected {path} to hold a state dict, found {type(content).__name__}.")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"Expected {path} to hold tensors by name, found other values under {others[:5]}.")
    state_dict = {str(name).removeprefix("module."): value for name, value in content.items()}
    if len(state_dict) < len(content):
        raise ValueError(
            f"Expected {path} to hold each tensor once, found some both with and without a leading 'module.'."
        )
    copies = {f"ema_{name.replace('.', '_')}" for name in state_dict}
    class_names, class_colors = _read_classes(meta)
    return Checkpoint(
        source=source,
        state_dict={name: value for name, value in state_dict.items() if name not in copies},
        averaging=[name for name in state_dict if name in copies],
        class_names=class_names,
        class_colors=class_colors,
    )


def _find_file(source: str) -> tuple[str, Path]:
    """Find a checkpoint file, which is downloaded first where it is on the Hub; the source then names it in full."""
    from huggingface_hub import hf_hub_download, list_repo_files

    path = Path(source).expanduser()
    if not source.startswith("hf://"):
        if re.match(r"(https?|ftp|s3|gs):/", source, re.IGNORECASE):
            raise ValueError(
                f"Expected a checkpoint file of this machine or {_HUB_FORM}, found the address {source}. Download the "
                "file first, or name one on the Hub with hf://."
            )
        if path.is_dir():
            found = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".pt", ".pth", ".safetensors"))
            raise IsADirectoryError(
                f"Expected a checkpoint file, found the folder {path}. Name a file in it"
                f"{': ' + ', '.join(found[:6]) if found else ', which holds no .pt, .pth or .safetensors'}."
            )
        if not path.is_file():
            raise FileNotFoundError(f"Expected a checkpoint file, found none at {path}.")
        return source, path
    owner, _, rest = source.removeprefix("hf://").partition("/")
    repository, _, filename = rest.rstrip("/").partition("/")
    name, separator, revision = repository.partition("@")
    if not (owner and name) or bool(separator) != bool(revision):
        raise ValueError(f"Expected {_HUB_FORM}, found {source!r}.")
    repo_id, commit = f"{owner}/{name}", unquote(revision) or None
    if not filename:  # then it is the only checkpoint of its repository
        try:
            files = list_repo_files(repo_id, revision=commit)
        except (OSError, ValueError):
            raise  # the Hub's answer, or none allowed: the message says which
        except Exception as error:  # of a lost connection, by the HTTP library of huggingface_hub's version
            raise ConnectionError(
                f"Expected to list the files of {source}, found no connection to the Hub ({error}). A file that was "
                "downloaded before is found when it is named: hf://owner/name/file."
            ) from error
        found = [name for name in files if name.lower().endswith((".pt", ".pth"))]
        if len(found) != 1:
            raise ValueError(
                f"Expected {source} to hold exactly one .pt or .pth file, found {len(found)}"
                f"{' among' if not found else ''}: {', '.join(found or sorted(files)) or 'no file at all'}. Name the "
                f"file: {source.rstrip('/')}/FILE."
            )
        (filename,) = found
        source = f"{source.rstrip('/')}/{filename}"
    return source, Path(hf_hub_download(repo_id, filename, revision=commit))


def _load(path: Path) -> object:
    """Load what a checkpoint file holds, if that is nothing but tensors, texts and numbers."""
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch stores checksums and does not look at them
        if damaged is not None:
            raise ValueError(
                f"Expected {path} to be whole, found another checksum than the stored one in its part {damaged}. "
                "Download or copy the file again; one that was written without checksums must be re-saved with "
                "torch.save."
            )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # advice to torch's developers
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are not a checkpoint the loaders raise almost anything, a KeyError too
        # In one sentence, without torch's advice on how to load such a file all the same.
        if not isinstance(error, UnpicklingError):
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
        else:
            named = re.search(r"GLOBAL (\S+)", str(error))
            names = [named[1]] if named else _find_pickled_names(path)
            asks = f"asks for {', '.join(names[:4])}" if names else ""
            reason = f"its pickle {asks or 'holds other instructions than those that make tensors'}"
        raise ValueError(
            f"Expected {path} to be a checkpoint of plain tensors, found a file that cannot be loaded safely "
            f"({reason}). Download a damaged file again. A pickle with other objects could run code and is refused: "
            "re-save its state dict with torch.save, or as safetensors, where you trust it."
        ) from error


def _find_pickled_names(path: Path) -> list[str]:
    """Find the Python objects that a pickle of a protocol that torch does not know asks for; nothing of it is run."""
    files: list[IO[bytes]] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            files = [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith("data.pkl")]
    else:
        files = [path.open("rb")]
    found: list[str] = []
    texts: list[str] = []
    for file in files:
        with file, suppress(Exception):  # a damaged pickle breaks off with almost anything; what was found counts
            for instruction, argument, _ in pickletools.genops(file):
                if instruction.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif instruction.name == "STACK_GLOBAL":  # takes the two texts before it
                    found.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return list(dict.fromkeys(found))


def _read_classes(meta: object) -> tuple[list[str] | None, list[str] | None]:
    """Read class names and colours in mmsegmentation's `meta`; other than distinct texts are not names.

    The original's dataset class counts its classes (0, 1) where a configuration names none.
    """

    def is_color(value: object) -> bool:
        return (
            isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)
        )

    names, palette = (meta.get("CLASSES"), meta.get("PALETTE")) if isinstance(meta, Mapping) else (None, None)
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        return None, None
    if len(set(names)) < len(names):
        return None, None
    if not isinstance(palette, list | tuple) or len(palette) != len(names) or not all(map(is_color, palette)):
        return list(names), None
    return list(names), ["#{:02x}{:02x}{:02x}".format(*color) for color in palette]
