# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading original checkpoints: from a file or the Hub, without running what a pickle may hold."""

import io
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from urllib.parse import unquote

import torch
from safetensors.torch import load_file

from prithvi_hf.conversion.tensor_names import shorten_names


_OWNER = "ibm-nasa-geospatial"
PUBLISHED_FILES: dict[str, tuple[str, str | None]] = {
    f"{_OWNER}/Prithvi-EO-1.0-100M": ("Prithvi_EO_V1_100M.pt", None),
    f"{_OWNER}/Prithvi-100M": ("Prithvi_100M.pt", None),
    **{
        f"{_OWNER}/Prithvi-EO-2.0-{size}": (f"Prithvi_EO_V2_{size.replace('-', '_')}.pt", None)
        for size in ("tiny-TL", "100M-TL", "300M", "300M-TL", "600M", "600M-TL")
    },
    f"{_OWNER}/Prithvi-EO-2.0-300M-TL-Sen1Floods11": ("Prithvi-EO-V2-300M-TL-Sen1Floods11.pt", None),
    f"{_OWNER}/Prithvi-EO-2.0-300M-BurnScars": ("Prithvi_EO_V2_300M_BurnScars.pt", None),
    **{
        f"{_OWNER}/{generation}-{task}": (f"{file}_Prithvi_100M.pth", recipe)
        for generation in ("Prithvi-EO-1.0-100M", "Prithvi-100M")
        for task, file, recipe in (
            ("sen1floods11", "sen1floods11", "sen1floods11"),
            ("burn-scar", "burn_scars", "hls_burn_scars"),
            ("multi-temporal-crop-classification", "multi_temporal_crop_classification", "multi_temporal_crop"),
        )
    },
}
"""By the published repository: its file of weights, and the packaged recipe that says what nothing in it does."""

_NUMBER_FORMATS = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_NUMBER_FORMATS |= {"f2": "e", "f4": "f", "f8": "d"}
# Where weights are: a dictionary under one of these keys stands for the whole file, one of these parts for a prefix.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARTS = ("module", "net", "network", "encoder", "decoder", "backbone", "neck", "decode_head", "auxiliary_head")
_MAX_LEVELS = 8
_MAX_NAME_LENGTH = 200
_MAX_TUPLES = 50_000
"""Of a pickle: a checkpoint has some per tensor, and to hash 200,000 of them inside each other overflows the stack."""
_ROOM = 2**26
"""Bytes that a file may claim whatever its size; otherwise four times its size, as archives may be compressed."""
# What makes tensors of numbers that the file itself holds; torch knows more, such as quantized and sparse ones.
_REBUILDS = {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "parameter")}
_OTHER_TENSORS = re.compile(r"torch\._(utils|tensor)\..*|torch\..*Tensor|torch\..*sparse.*")
_HUB_FORM = "hf://owner/name/file, hf://owner/name@revision/file, or without a file where there is only one"


class _NumberType:
    """Stands for `numpy.dtype` in a pickle: the code and the byte order of a plain number, and nothing of numpy."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _NUMBER_FORMATS:
            raise ValueError(f"a number of numpy's type {ascii(code)[:40]}")
        self.format = "<" + _NUMBER_FORMATS[code]

    def __setstate__(self, state: tuple) -> None:
        self.format = (">" if state[1] == ">" else "<") + self.format[1:]


def _read_number(kind: _NumberType, data: bytes) -> bool | int | float:
    """Stand for numpy's `scalar` in a pickle: read a plain number."""
    return struct.unpack(kind.format, data)[0]


# What torch does not unpickle by itself and checkpoints hold all the same: numpy's numbers, such as mmcv's best score.
# They are read without numpy, whose types trust the state that a pickle gives them; names are of numpy 1 and numpy 2.
_SAFE_GLOBALS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_read_number, "numpy.core.multiarray.scalar"),
    (_read_number, "numpy._core.multiarray.scalar"),
    (_NumberType, "numpy.dtype"),
    # Bands in the parameters of terratorch's models: their names.
    *((str, f"terratorch.datasets.utils.{kind}Bands") for kind in ("HLS", "Optical", "SAR")),
]


@dataclass
class Checkpoint:
    """What an original checkpoint file holds."""

    source: str  # as it was given, and on the Hub without a file the one that was found
    path: Path
    state_dict: dict[str, torch.Tensor]  # under the original names
    averaging: list[str] = field(default_factory=list)  # names of mmcv's EMAHook, which are not in state_dict
    class_names: list[str] | None = None  # that mmsegmentation stored with the weights
    class_colors: list[str] | None = None  # "#rrggbb"
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)  # of the task that Lightning trained


def find_published_recipe(source: str | Path) -> str | None:
    """Find the recipe of a published fine-tuned model by its repository, or by the name of its file here."""
    if repository := re.match(r"hf://([^/]+/[^/@]+)", str(source)):
        return PUBLISHED_FILES.get(repository[1], ("", None))[1]
    return next((recipe for file, recipe in PUBLISHED_FILES.values() if file == Path(source).name), None)


def is_config_name(name: str) -> bool:
    """Whether a file beside weights may say what they are."""
    return name == "config.json" or name.endswith((".yaml", ".yml"))


def load_checkpoint(source: str | Path, with_configs: bool = True) -> Checkpoint:
    """Read an original checkpoint; `with_configs` downloads configuration files beside one on the Hub as well.

    mmcv's `EMAHook` keeps a second copy of every weight as `ema_<name with underscores>`. When it saves, the averaged
    weights, those that were evaluated, stand under the plain names and the others in the copies; so the copies are
    left out.
    """
    source, path = find_file(str(source), with_configs)
    content = _load(path)
    tensors = _find_tensors(content, path)
    for name in tensors:
        if isinstance(name, str) and name.isprintable() and len(name) <= _MAX_NAME_LENGTH:
            continue
        raise ValueError(
            f"Expected tensors in {path} with printable names of at most {_MAX_NAME_LENGTH} characters, found "
            f"{_abbreviate(name)}. The file is damaged or not a checkpoint of weights: download it again."
        )
    # By the shape: a tensor without strides repeats one stored number as often as it likes.
    claimed, size = sum(value.numel() * value.element_size() for value in tensors.values()), path.stat().st_size
    if claimed > max(_ROOM, 4 * size):
        raise ValueError(
            f"Expected {path} to hold its tensors, found shapes of {claimed:,} bytes in a file of {size:,}. Save a "
            "contiguous copy of each tensor."
        )
    copies = set()
    for short, name in shorten_names(tensors).items():
        around = name.removesuffix(short).split(".")  # the hook may be inside some of the modules around
        copies |= {f"ema_{'.'.join([*around[level:-1], short])}".replace(".", "_") for level in range(len(around))}
    averaging = [name for short, name in shorten_names(tensors).items() if short in copies]
    beside = content if isinstance(content, Mapping) else {}
    class_names, class_colors = _read_classes(beside.get("meta"))
    hyper_parameters = beside.get("hyper_parameters")
    return Checkpoint(
        source=source,
        path=path,
        state_dict={name: value for name, value in tensors.items() if name not in averaging},
        averaging=averaging,
        class_names=class_names,
        class_colors=class_colors,
        hyper_parameters=hyper_parameters if isinstance(hyper_parameters, Mapping) else {},
    )


def _find_tensors(content: object, path: Path, levels: int = _MAX_LEVELS) -> dict[str, torch.Tensor]:
    """Find the weights in what a file holds; keys of parts become the beginning of names."""
    if not isinstance(content, Mapping) or not content or levels == 0:
        found = f"dictionaries in more than {_MAX_LEVELS} levels" if levels == 0 else type(content).__name__
        raise ValueError(f"Expected {path} to hold a state dict, found {found}.")
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _find_tensors(content[key], path, levels - 1)
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    parts = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)]
    if not set(_PARTS).isdisjoint(parts):  # what else a trainer saves, such as its optimizer, is not of tensors alone
        for key in parts:
            if key in _PARTS or all(isinstance(value, torch.Tensor) for value in content[key].values()):
                inner = _find_tensors(content[key], path, levels - 1)
                tensors |= {f"{key}.{name}": value for name, value in inner.items()}
        return tensors
    others = [_abbreviate(name) for name in content if name not in tensors]
    if others:
        raise ValueError(f"Expected {path} to hold tensors by name, found other values under {', '.join(others[:5])}.")
    return tensors


def _abbreviate(key: object) -> str:
    """Write the key of a dictionary of a file, which may be of any length and hold any character, or any object."""
    return ascii(key)[:80] if isinstance(key, str) else f"a key of type {type(key).__name__}"


def find_file(source: str, with_configs: bool = False) -> tuple[str, Path]:
    """Find a file, which is downloaded first where it is on the Hub; the source then names it in full.

    `with_configs` downloads the configuration files of its folder too, to lie beside it.
    """
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
    files: list[str] = []
    if not filename or with_configs:
        try:
            files = list_repo_files(repo_id, revision=commit)
        except Exception as error:
            if not filename and isinstance(error, OSError | ValueError):
                raise  # the Hub's answer, or none allowed: the message says which
            if not filename:  # of a lost connection, by the HTTP library of huggingface_hub's version
                raise ConnectionError(
                    f"Expected to list the files of {source}, found no connection to the Hub ({error}). A file that "
                    "was downloaded before is found when it is named: hf://owner/name/file."
                ) from error
            # A file that is named may be here already, with its configuration beside it.
    if not filename:  # then it is the published one, or the only checkpoint of its repository
        found = [name for name in files if name.lower().endswith((".pt", ".pth", ".ckpt"))]
        published = PUBLISHED_FILES.get(repo_id, ("", None))[0]
        if published in found:
            found = [published]
        if len(found) != 1:
            raise ValueError(
                f"Expected {source} to hold exactly one .pt, .pth or .ckpt file, found {len(found)}"
                f"{' among' if not found else ''}: {', '.join(found or sorted(files)) or 'no file at all'}. Name the "
                f"file: {source.rstrip('/')}/FILE."
            )
        (filename,) = found
        source = f"{source.rstrip('/')}/{filename}"
    path = Path(hf_hub_download(repo_id, filename, revision=commit))
    folder = filename.rpartition("/")[0]
    for name in files if with_configs else []:
        if name.rpartition("/")[0] == folder and is_config_name(name.rpartition("/")[2]):
            hf_hub_download(repo_id, name, revision=commit)
    return source, path


def _load(path: Path) -> object:
    """Load what a checkpoint file holds, if that is nothing but tensors, texts and numbers."""
    damaged = None
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                claimed = sum(item.file_size for item in archive.infolist())
                if claimed > max(_ROOM, 4 * path.stat().st_size):
                    raise ValueError(f"an archive that claims to hold {claimed:,} bytes")
                damaged = archive.testzip()  # torch stores checksums and does not look at them
        if damaged is None:
            names, num_tuples = _scan_pickles(path)
            if refused := [name for name in names if name not in _REBUILDS and _OTHER_TENSORS.fullmatch(name)]:
                raise ValueError(f"its pickle asks for {', '.join(refused[:4])}")
            if num_tuples > _MAX_TUPLES:
                raise ValueError(f"more than {_MAX_TUPLES:,} tuples in its pickle")
            with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # advice to torch's developers
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are not a checkpoint the loaders raise almost anything, a KeyError too
        # In one sentence, without torch's advice on how to load such a file all the same.
        if isinstance(error, UnpicklingError):
            named = re.search(r"GLOBAL (\S+)", str(error))
            names = [named[1]] if named else _scan_pickles(path)[0]
            asks = f"asks for {', '.join(names[:4])}" if names else ""
            reason = f"its pickle {asks or 'holds other instructions than those that make tensors'}"
        else:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
            reason = reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"
        raise ValueError(
            f"Expected {path} to be a checkpoint of plain tensors, found a file that cannot be loaded safely "
            f"({reason}). Download a damaged file again. A pickle with other objects could run code and is refused: "
            "where you trust it, re-save its state dict (Lightning's is under state_dict) with torch.save, or as "
            "safetensors."
        ) from error
    raise ValueError(
        f"Expected {path} to be whole, found another checksum than the stored one in its part {damaged}. Download or "
        "copy the file again; one that was written without checksums must be re-saved with torch.save."
    )


def _scan_pickles(path: Path) -> tuple[list[str], int]:
    """List the Python objects that the pickles of a file ask for, and count their tuples; nothing of them is run."""
    files: list[IO[bytes]] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            files = [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith("data.pkl")]
    else:
        files = [path.open("rb")]
    found: list[str] = []
    texts: list[str] = []
    num_tuples = 0
    for file in files:
        with file, suppress(Exception):  # a damaged pickle breaks off with almost anything; what was found counts
            for _ in range(5):  # torch's older format has so many, one after the other, before the tensors
                for instruction, argument, _ in pickletools.genops(file):
                    num_tuples += instruction.name.startswith("TUPLE")
                    if instruction.name == "GLOBAL":
                        found.append(str(argument).replace(" ", "."))
                    elif instruction.name == "STACK_GLOBAL":  # takes the two texts before it
                        found.append(".".join(texts[-2:]))
                    elif isinstance(argument, str):
                        texts.append(argument)
    return list(dict.fromkeys(found)), num_tuples


def _read_classes(meta: object) -> tuple[list[str] | None, list[str] | None]:
    """Read class names and colours in mmsegmentation's `meta`; other than distinct texts are not names.

    The original's dataset class counts its classes (0, 1) where a configuration names none.
    """

    def is_color(value: object) -> bool:
        return (
            isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)
        )

    names, palette = (meta.get("CLASSES"), meta.get("PALETTE")) if isinstance(meta, Mapping) else (None, None)
    if not isinstance(names, list | tuple) or not names:
        return None, None
    if not all(isinstance(name, str) and name and name.isprintable() for name in names):
        return None, None
    if len(set(names)) < len(names):
        return None, None
    if not isinstance(palette, list | tuple) or len(palette) != len(names) or not all(map(is_color, palette)):
        return list(names), None
    return list(names), ["#{:02x}{:02x}{:02x}".format(*color) for color in palette]
