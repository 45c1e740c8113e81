# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The user's own chips: folders of GeoTIFF images and masks, paired by file name."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import BuilderConfig, DatasetInfo
from datasets.utils import logging

from prithvi_hf.data.builders.base import ChipBuilder, chip_features
from prithvi_hf.data.builders.download import ARCHIVE_SUFFIXES
from prithvi_hf.data.builders.files import (
    check_ids,
    decode_text,
    examples,
    list_files,
    parse_id_list,
    public_datasets,
    to_ids,
)


logger = logging.get_logger(__name__)

_EXTENSIONS = (".tif", ".tiff", ".TIF", ".TIFF")
_SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


@dataclass
class GeoTiffFolderConfig(BuilderConfig):
    """Options of [`GeoTiffFolder`]; paths are relative to `data_dir`, or absolute.

    Args:
        image_suffix (`str` or `list[str]`, *optional*): how image file names end, for example "_merged.tif". What
            stands before it is the chip's id, by which images and masks are paired. None takes every .tif and .tiff
            file, and the id is the name without this extension. A list names one file a frame, in the order of the
            frames, and makes `image` a list of GeoTIFFs.
        mask_suffix (`str`, *optional*): how mask file names end; None as for images. Where both suffixes fit a file,
            the longer one decides, so ".tif" beside "_mask.tif" works in one folder.
        image_dir (`str`, *optional*): folder of the images; None is `data_dir`, or the split's folder in it.
        mask_dir (`str`, *optional*): folder of the masks; None is the same as `image_dir`.
        splits (`dict[str, str | list[str]]`, *optional*): for each split its folder, a text file of ids, one a line,
            or the ids themselves as a list; file names do as well as ids. None looks for folders train(ing),
            validation/valid/val and test(ing); without any, all chips are the split "train".
        require_masks (`bool`, *optional*, defaults to `True`): False allows chips without mask, whose `mask` is None.

    Raises:
        ValueError: an option of another type than these.
    """

    image_suffix: str | list[str] | tuple[str, ...] | None = None
    mask_suffix: str | None = None
    image_dir: str | None = None
    mask_dir: str | None = None
    splits: dict[str, str | list[str] | tuple[str, ...]] | None = None
    require_masks: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_types(vars(self))

    @property
    def frame_suffixes(self) -> list[str | None]:
        """Image suffixes, one a frame."""
        return list(self.image_suffix) if isinstance(self.image_suffix, list | tuple) else [self.image_suffix]


@dataclass(frozen=True)
class _Place:
    """A folder of images and its folder of masks."""

    images: str
    masks: str


class GeoTiffFolder(ChipBuilder):
    """Builder of a data set from the user's own GeoTIFF files.

    Layouts, each with suffixes as in [`GeoTiffFolderConfig`]:

    - images and masks in one folder, told apart by suffix, or in `image_dir` and `mask_dir`;
    - splits as folders around these (`train/images/a.tif`) or inside them (`images/train/a.tif`), found by their usual
      names or named by `splits`; or as lists of ids, in text files or in place (`splits={"train": ["a", "b"]}`).

    Rows: `image` (GeoTIFF, or a list of frames), `mask`, `id` (file name without suffix), `date` (None; with a list of
    frames `dates`, None for each).

    Raises:
        FileNotFoundError: no such folder, no image in it, or an image, a frame or a mask missing from a pair.
        ValueError: options of a wrong type or that contradict each other, an empty list, or an id listed twice.
    """

    DATASET_NAME: ClassVar[str] = "geotiff_folder"
    BUILDER_CONFIG_CLASS = GeoTiffFolderConfig
    VERSION = "1.0.0"

    @classmethod
    def _other_places(cls, data_dir: str, options: Mapping[str, Any]) -> list[str]:
        _check_types(options)
        sources = (options.get("splits") or {}).values()
        named = (options.get("image_dir"), options.get("mask_dir"), *sources)
        places = {_folder(data_dir, name) for name in named if name and isinstance(name, str)}
        return sorted(place for place in places if os.path.exists(place) and not _is_inside(place, data_dir))

    def _info(self) -> DatasetInfo:
        _check_options(self.config)
        multi_frame = not isinstance(self.config.image_suffix, str | None)
        return DatasetInfo(
            description="Georeferenced chips with masks, from a folder of GeoTIFF files.",
            features=chip_features(frames_are_files=multi_frame, multi_date=multi_frame),
        )

    def _rows_by_split(self, dl_manager: Any) -> Mapping[str, list[dict[str, Any]]]:
        if self.config.splits is None:
            places = self._detect_splits() or {"train": self._place(None)}
            return {split: self._folder_rows(split, place) for split, place in places.items()}
        rows = {split: self._named_rows(split, source) for split, source in self.config.splits.items()}
        _warn_of_shared_chips(rows)
        return rows

    def _detect_splits(self) -> dict[str, _Place]:
        found = {}
        for split, names in _SPLIT_FOLDERS.items():
            places = {name: place for name in names if (place := self._place(name))}
            if len(places) > 1:
                raise ValueError(
                    f"{self.config.data_dir}: expected one folder for split {split}, found {list(places)}. Name the "
                    "one to use with the option splits."
                )
            if places:
                found[split] = next(iter(places.values()))
        return found

    def _place(self, split_folder: str | None) -> _Place | None:
        """Finds the image and mask folders of a split folder, which may stand around them or inside them."""
        root, config = self.config.data_dir, self.config
        image_dir = config.image_dir or ""
        mask_dir = image_dir if config.mask_dir is None else config.mask_dir
        if split_folder is None:
            return _Place(_folder(root, image_dir), _folder(root, mask_dir))
        around = _Place(_folder(root, split_folder, image_dir), _folder(root, split_folder, mask_dir))
        inside = _Place(_folder(root, image_dir, split_folder), _folder(root, mask_dir, split_folder))
        return next((place for place in (around, inside) if os.path.isdir(place.images)), None)

    def _named_rows(self, split: str, source: str | list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
        if not isinstance(source, str):
            return self._listed_rows(f"split {split} (list in splits)", to_ids(source, self._endings()))
        place = self._place(source)
        if place is not None:
            return self._folder_rows(split, place)
        path = _folder(self.config.data_dir, source)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"Split {split}: expected a folder or a list of ids, found nothing at {path}. Check the option splits."
            )
        ids = parse_id_list(decode_text(Path(path).read_bytes(), path), self._endings())
        return self._listed_rows(f"split {split} ({path})", ids)

    def _folder_rows(self, split: str, place: _Place) -> list[dict[str, Any]]:
        frames, masks = self._scan(place)
        # Ids of either kind, so that one message tells what is missing on both sides.
        ids = sorted(set().union(*frames, masks if self.config.require_masks else ()))
        return self._rows(ids, frames, masks, f"split {split} ({place.images})")

    def _listed_rows(self, source: str, ids: list[str]) -> list[dict[str, Any]]:
        frames, masks = self._scan(self._place(None))
        return self._rows(ids, frames, masks, source)

    def _endings(self) -> list[str]:
        """What is cut off file names in lists of ids."""
        suffixes = [suffix for suffix in (*self.config.frame_suffixes, self.config.mask_suffix) if suffix]
        return [*suffixes, *_EXTENSIONS]

    def _scan(self, place: _Place) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Lists the files of a place as {id: path}: one dict a frame, and one of the masks."""
        frames, mask_suffix = self.config.frame_suffixes, self.config.mask_suffix
        together = os.path.realpath(place.images) == os.path.realpath(place.masks)
        rivals = [*frames, mask_suffix] if together and mask_suffix is not None else frames
        images = [_match(place.images, suffix, rivals) for suffix in frames]
        if not any(images):
            raise FileNotFoundError(_no_image_message(place.images, frames, self.config.data_dir))
        if together and mask_suffix is None:
            masks = {}
        else:
            masks = _match(place.masks, mask_suffix, [*frames, mask_suffix] if together else [mask_suffix])
        return images, masks

    def _rows(
        self, ids: list[str], frames: list[dict[str, str]], masks: dict[str, str], source: str
    ) -> list[dict[str, Any]]:
        kinds = (
            {"image": frames[0]} if len(frames) == 1 else {f"frame {i}": files for i, files in enumerate(frames, 1)}
        )
        check_ids(ids, {**kinds, "mask": masks} if self.config.require_masks else kinds, source)
        single = isinstance(self.config.image_suffix, str | None)
        date = {"date": None} if single else {"dates": [None] * len(frames)}
        images = ([files[chip] for files in frames] for chip in ids)
        return [
            {"image": paths[0] if single else paths, "mask": masks.get(chip), "id": chip, **date}
            for chip, paths in zip(ids, images, strict=True)
        ]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_mapping_of_sources(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(map(_is_text, value))
        and all(_is_text(source) or _is_list_of_texts(source) for source in value.values())
    )


# Option -> (what it may be besides None, in words, remedy).
_TYPES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "image_suffix": (
        lambda value: _is_text(value) or _is_list_of_texts(value),
        "a text such as '_merged.tif', or a list of such texts, one a frame",
        "Put numbers in quotes.",
    ),
    "mask_suffix": (_is_text, "a text such as '_mask.tif'", "Put numbers in quotes."),
    "image_dir": (_is_text, "the path of a folder", "Put numbers in quotes."),
    "mask_dir": (_is_text, "the path of a folder", "Put numbers in quotes."),
    "splits": (
        _is_mapping_of_sources,
        "a mapping from each split to its folder, its text file of ids, or a list of ids",
        "Write it as {train: train.txt, validation: ['a', 'b']}, ids that are numbers in quotes.",
    ),
    "require_masks": (lambda value: isinstance(value, bool), "true or false", "Write it without quotes."),
}


def _check_types(options: Mapping[str, Any]) -> None:
    """Checks what YAML and JSON files give as options, which may be of any type.

    Raises:
        ValueError: an option of a wrong type.
    """
    for name, (fits, expected, remedy) in _TYPES.items():
        value = options.get(name, getattr(GeoTiffFolderConfig, name))
        if not fits(value) and (value is not None or name == "require_masks"):
            raise ValueError(f"geotiff_folder: expected {name} as {expected}, found {value!r}. {remedy}")


def _check_options(config: GeoTiffFolderConfig) -> None:
    if config.data_dir is None:
        raise ValueError("geotiff_folder: expected the folder of your GeoTIFF files, found none. Pass data_dir.")
    # No suffix means any extension of GeoTIFF files, so it cannot be told from ".tif" either.
    suffixes = [None if suffix in _EXTENSIONS else suffix for suffix in (*config.frame_suffixes, config.mask_suffix)]
    if not config.frame_suffixes or len(set(config.frame_suffixes)) < len(config.frame_suffixes):
        raise ValueError(f"geotiff_folder: expected one distinct image_suffix a frame, found {config.image_suffix}.")
    same_folder = config.mask_dir is None or config.mask_dir == config.image_dir
    if same_folder and config.require_masks and suffixes[-1] in suffixes[:-1]:
        if not _hold_geotiffs(config.data_dir, _folder(config.data_dir, config.image_dir or "")):
            raise FileNotFoundError(_no_geotiff_message(config.data_dir))
        raise ValueError(
            "geotiff_folder: expected file names that tell images and masks in one folder apart, found both ending in "
            f"{suffixes[-1] or '.tif'}. Give mask_suffix or mask_dir, or require_masks=False for chips without masks."
            f"{_public_hint(config.data_dir)}"
        )


def _folder(*parts: str) -> str:
    return os.path.normpath(os.path.join(*parts))


def _is_inside(path: str, folder: str) -> bool:
    return os.path.commonpath([os.path.abspath(path), folder]) == folder


def _fit(name: str, suffix: str | None) -> str:
    """The ending of a file name that a suffix stands for, "" if none."""
    endings = _EXTENSIONS if suffix is None else (suffix,)
    return next((ending for ending in endings if name.endswith(ending)), "")


def _match(folder: str, suffix: str | None, rivals: Iterable[str | None]) -> dict[str, str]:
    """Lists a folder's files of one suffix as {id: path}, without those that a rival suffix fits at greater length.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"Expected a folder of GeoTIFF files, found none at {folder}. Check the folder options."
        )
    found = {}
    for name in sorted(os.listdir(folder)):
        ending = _fit(name, suffix)
        longest = max((len(_fit(name, rival)) for rival in rivals), default=0)
        if not ending or len(ending) < longest or name.startswith("."):
            continue
        chip = name[: -len(ending)]
        if chip in found:
            raise ValueError(
                f"{folder}: expected one file for {chip}, found {os.path.basename(found[chip])} and {name}. Remove "
                "one, or give the full suffix."
            )
        found[chip] = os.path.join(folder, name)
    return found


def _hold_geotiffs(*folders: str) -> bool:
    """Whether there is a GeoTIFF below any of the folders; a missing folder has none."""
    return any(name.endswith(_EXTENSIONS) for place in folders if os.path.isdir(place) for name in list_files(place))


def _no_geotiff_message(folder: str) -> str:
    names = list(list_files(folder))
    found = f"{len(names)} other files ({examples(names)})" if names else "no file at all"
    packed = any(name.lower().endswith(ARCHIVE_SUFFIXES) for name in names)
    remedy = "Extract the archives" if packed else "Check the path"
    return f"{folder}: expected GeoTIFF files (.tif, .tiff) in it or below it, found {found}. {remedy}."


def _public_hint(folder: str) -> str:
    """A remedy for folders that hold a data set which this package knows by name; starts with a space, or is empty."""
    names = public_datasets(list_files(folder))
    if not names:
        return ""
    if len(names) == 1:
        return f" The files look like those of {names[0]}, which needs no such options: --dataset {names[0]}."
    return (
        f" The files look like those of {' and '.join(names)}, which need no such options: point data_dir at the "
        f"folder of one of them and name it, as in --dataset {names[0]}."
    )


def _no_image_message(folder: str, suffixes: list[str | None], data_dir: str) -> str:
    if not _hold_geotiffs(folder, data_dir):
        return _no_geotiff_message(data_dir)
    names = [name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    expected = " or ".join(suffix or "/".join(_EXTENSIONS[:2]) for suffix in suffixes)
    holds = f"{len(names)} others ({examples(names)})" if names else "nothing"
    remedy = "Check image_dir and image_suffix."
    return f"{folder}: expected images ending in {expected}, found {holds}. {remedy}{_public_hint(data_dir)}"


def _warn_of_shared_chips(rows: Mapping[str, list[dict[str, Any]]]) -> None:
    seen: dict[str, str] = {}
    for split, chips in rows.items():
        paths = [str(row["image"]) for row in chips]
        shared = sorted({seen[path] for path in paths if path in seen})
        if shared:
            logger.warning(f"geotiff_folder: split {split} shares chips with {', '.join(shared)}.")
        seen.update(dict.fromkeys(paths, split))
