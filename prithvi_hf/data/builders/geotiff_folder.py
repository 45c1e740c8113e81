# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The user's own chips: folders of GeoTIFF images and masks, paired by file name."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from datasets import BuilderConfig, DatasetInfo
from datasets.utils import logging

from prithvi_hf.data.builders import find_public_datasets
from prithvi_hf.data.builders.base import AnyDownloadManager, ChipBuilder, make_features
from prithvi_hf.data.builders.download import ARCHIVE_SUFFIXES
from prithvi_hf.data.builders.files import (
    VECTOR_SUFFIXES,
    ChipRow,
    check_ids,
    list_files,
    make_ids,
    normalize_name,
    read_day,
    read_ids,
    read_text,
    show_some,
)
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.opening import parse_granule_name


logger = logging.get_logger(__name__)

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
_RASTERIZE = (
    "Remedy: put the polygons on the grid of each image, `prithvi-hf rasterize polygons.gpkg --like a.tif --attribute "
    "CLASS --output a_mask.tif`, or cut one large scene and its polygons into chips with `prithvi-hf chip`."
)
_EXPECTED = {
    "image_suffix": "a text such as '_merged.tif', or a list of such texts, one per frame",
    "mask_suffix": "a text such as '_mask.tif'",
    "image_dir": "the path of a folder",
    "mask_dir": "the path of a folder",
    "dates": "the path of a csv file",
    "splits": "a mapping from each split to its folder, its text file of ids, or a list of ids, as in "
    "{train: train.txt, validation: ['a', 'b']}",
}


@dataclass
class GeoTiffFolderConfig(BuilderConfig):
    """Options of [`GeoTiffFolder`]; paths are relative to `data_dir`, or absolute.

    Args:
        image_suffix (`str` or `list[str]`, *optional*): how image file names end, for example "_merged.tif". What
            stands before it is the chip's id, by which images and masks are paired. Capitals in extensions and the
            two forms of accented letters make no difference. None takes every .tif and .tiff file, and the id is the
            name without this extension. A list names one file per frame, in the order of the
            frames, and makes `image` a list of GeoTIFFs.
        mask_suffix (`str`, *optional*): how mask file names end; None as for images. Where both suffixes fit a file,
            the longer one decides, so ".tif" beside "_mask.tif" works in one folder.
        image_dir (`str`, *optional*): folder of the images; None is `data_dir`, or the split's folder in it.
        mask_dir (`str`, *optional*): folder of the masks; None is the same as `image_dir`.
        splits (`dict[str, str | list[str]]`, *optional*): for each split its folder, a text file of ids, one per line,
            or the ids themselves as a list; file names do as well as ids. None looks for folders train(ing),
            validation/valid/val and test(ing); without any, all chips are the split "train".
        require_masks (`bool`, *optional*, defaults to `True`): False allows chips without mask, whose `mask` is None.
        dates (`str`, *optional*): a csv file of days for models that take them, one chip per line: its id or file
            name, and the day of each frame in the order of the frames, such as 2022-06-21; an empty day is unknown.
            None takes the days in file names of HLS, Sentinel-2 and Landsat.
    """

    image_suffix: str | list[str] | tuple[str, ...] | None = None
    mask_suffix: str | None = None
    image_dir: str | None = None
    mask_dir: str | None = None
    splits: dict[str, str | list[str] | tuple[str, ...]] | None = None
    require_masks: bool = True
    dates: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # YAML and JSON files give options of any type.
        for name, expected in _EXPECTED.items():
            value = getattr(self, name)
            right = _is_text(value) or (name == "image_suffix" and _is_list(value))
            if name == "splits":
                sources = value if isinstance(value, Mapping) else {}
                right = len(sources) > 0 and all(map(_is_text, sources))
                right = right and all(_is_text(source) or _is_list(source) for source in sources.values())
            if value is not None and not right:
                raise ValueError(
                    f"geotiff_folder: expected {name} as {expected}, found {value!r}. Put ids and numbers in quotes."
                )
        if not isinstance(self.require_masks, bool):
            raise ValueError(
                f"geotiff_folder: expected require_masks as true or false, found {self.require_masks!r}. Write it "
                "without quotes."
            )
        self.image_dir = self.image_dir or ""
        self.mask_dir = self.image_dir if self.mask_dir is None else self.mask_dir

    @property
    def has_frames(self) -> bool:
        """Whether each chip is a list of files, one per frame."""
        return isinstance(self.image_suffix, list | tuple)

    @property
    def image_suffixes(self) -> list[str | None]:
        """Image suffixes, one per frame."""
        return list(self.image_suffix) if isinstance(self.image_suffix, list | tuple) else [self.image_suffix]


class GeoTiffFolder(ChipBuilder):
    """Builder of a dataset from the user's own GeoTIFF files.

    Layouts, each with suffixes as in [`GeoTiffFolderConfig`]:

    - images and masks in one folder, told apart by suffix, or in `image_dir` and `mask_dir`;
    - splits as folders around these (`train/images/a.tif`) or inside them (`images/train/a.tif`), found by their usual
      names or named by `splits`; or as lists of ids, in text files or in place (`splits={"train": ["a", "b"]}`).

    Rows: `image` (GeoTIFF, or a list of frames), `mask`, `id` (file name without suffix), `date` (ISO day, or None);
    with a list of frames or the option `dates` instead `dates`, a list with one for each frame.
    """

    DATASET_NAME: ClassVar[str] = "geotiff_folder"
    BUILDER_CONFIG_CLASS = GeoTiffFolderConfig
    VERSION = "1.0.0"
    IDS_HAVE_FOLDERS: ClassVar[bool] = False  # ids in lists are file names alone, whatever folder stands before them

    @classmethod
    def _find_other_places(cls, data_dir: str, options: Mapping[str, object]) -> list[str]:
        splits = options.get("splits")
        sources = list(splits.values()) if isinstance(splits, Mapping) else []
        named = (*(options.get(name) for name in ("image_dir", "mask_dir", "table", "dates")), *sources)
        places = {_join(data_dir, name) for name in named if name and isinstance(name, str)}
        outside = [path for path in places if os.path.commonpath([os.path.abspath(path), data_dir]) != data_dir]
        return sorted(path for path in outside if os.path.exists(path))

    def _info(self) -> DatasetInfo:
        config = self.config
        if config.data_dir is None:
            raise ValueError("geotiff_folder: expected the folder of your GeoTIFF files, found none. Pass data_dir.")
        if not config.image_suffixes or len(set(config.image_suffixes)) < len(config.image_suffixes):
            raise ValueError(
                f"geotiff_folder: expected one distinct image_suffix per frame, found {config.image_suffix}."
            )
        # No suffix means any extension of GeoTIFF files, so it cannot be told from ".tif" either.
        suffixes = [suffix and normalize_name(suffix) for suffix in (*config.image_suffixes, config.mask_suffix)]
        *images, mask = (None if suffix in TIFF_SUFFIXES else suffix for suffix in suffixes)
        if mask is not None and mask.endswith(VECTOR_SUFFIXES):
            raise ValueError(f"geotiff_folder: expected masks that are GeoTIFF files, found {mask}. {_RASTERIZE}")
        if config.mask_dir == config.image_dir and config.require_masks and mask in images:
            _check_geotiffs(config.data_dir, _join(config.data_dir, config.image_dir))
            raise ValueError(
                "geotiff_folder: expected file names that tell images and masks in one folder apart, found both "
                f"ending in {mask or '.tif'}. Give mask_suffix or mask_dir, or require_masks=False for chips without "
                f"masks.{_suggest_public_dataset(config.data_dir)}"
            )
        return DatasetInfo(
            description="Georeferenced chips with masks, from a folder of GeoTIFF files.",
            features=make_features(
                frames_are_files=config.has_frames, multi_date=config.has_frames or config.dates is not None
            ),
        )

    def _make_rows(self, dl_manager: AnyDownloadManager) -> dict[str, list[ChipRow]]:
        config = self.config
        folders = _join(config.data_dir, config.image_dir), _join(config.data_dir, config.mask_dir)
        sources = dict(config.splits or {})
        for split, names in SPLIT_FOLDERS.items() if config.splits is None else ():
            found = [name for name in names if self._find_split_folders(name)]
            if len(found) > 1:
                raise ValueError(
                    f"{config.data_dir}: expected one folder for split {split}, found {found}. Name the one to use "
                    "with the option splits."
                )
            if found:
                sources[split] = found[0]
        given = [suffix for suffix in (*config.image_suffixes, config.mask_suffix) if suffix]
        endings = [*given, *TIFF_SUFFIXES]
        rows: dict[str, list[ChipRow]] = {}
        for split, source in sources.items():
            if not isinstance(source, str):
                rows[split] = self._pair(
                    *folders, f"{split} (list in splits)", make_ids(source, endings, self.IDS_HAVE_FOLDERS)
                )
            elif place := self._find_split_folders(source):
                rows[split] = self._pair(*place, split)
            elif os.path.isfile(path := _join(config.data_dir, source)):
                rows[split] = self._pair(*folders, f"{split} ({path})", read_ids(path, endings, self.IDS_HAVE_FOLDERS))
            else:
                raise FileNotFoundError(
                    f"Split {split}: expected a folder or a list of ids, found nothing at {path}. Check the option "
                    "splits."
                )
        seen: dict[str, str] = {}
        for split, chips in rows.items():
            paths = [str(row["image"]) for row in chips]
            if shared := sorted({seen[path] for path in paths if path in seen}):
                logger.warning(f"geotiff_folder: split {split} shares chips with {', '.join(shared)}.")
            seen.update(dict.fromkeys(paths, split))
        return rows or {"train": self._pair(*folders, "train")}

    def _find_split_folders(self, name: str) -> tuple[str, str] | None:
        """Find the image and mask folders of a split's folder, which may stand around them or inside them."""
        root, image_dir, mask_dir = self.config.data_dir, self.config.image_dir, self.config.mask_dir
        around = _join(root, name, image_dir), _join(root, name, mask_dir)
        inside = _join(root, image_dir, name), _join(root, mask_dir, name)
        return next((place for place in (around, inside) if os.path.isdir(place[0])), None)

    def _pair(self, image_dir: str, mask_dir: str, split: str, ids: list[str] | None = None) -> list[ChipRow]:
        """Pair the files of two folders, which may be one; ids name and order the chips that are wanted."""
        suffixes, mask_suffix = self.config.image_suffixes, self.config.mask_suffix
        together = os.path.realpath(image_dir) == os.path.realpath(mask_dir)
        rivals = [*suffixes, mask_suffix] if together and mask_suffix is not None else suffixes
        frames = [_match(image_dir, suffix, rivals) for suffix in suffixes]
        if not any(frames):
            _check_geotiffs(self.config.data_dir, image_dir)
            names = [name for name in sorted(os.listdir(image_dir)) if not name.startswith(".")]
            expected = " or ".join(suffix or "/".join(TIFF_SUFFIXES) for suffix in suffixes)
            holds = f"{len(names)} others ({show_some(names)})" if names else "nothing"
            raise FileNotFoundError(
                f"{image_dir}: expected images ending in {expected}, found {holds}. Check image_dir and image_suffix."
                f"{_suggest_public_dataset(self.config.data_dir)}"
            )
        masks: dict[str, str] = {}
        if mask_suffix is not None or not together:
            masks = _match(mask_dir, mask_suffix, rivals if together else [mask_suffix])
            polygons = [name for name in os.listdir(mask_dir) if normalize_name(name).endswith(VECTOR_SUFFIXES)]
            if self.config.require_masks and not masks and polygons:
                found = show_some(sorted(polygons))
                raise ValueError(f"{mask_dir}: expected masks that are GeoTIFF files, found {found}. {_RASTERIZE}")
            _check_dates(frames, masks, suffixes, mask_dir)
        if ids is None:
            # Ids of either kind, so that one message tells what is missing on both sides.
            ids = sorted(set().union(*frames, masks if self.config.require_masks else ()))
            split = f"{split} ({image_dir})"
        kinds = {f"frame {i}" if len(frames) > 1 else "image": files for i, files in enumerate(frames, 1)}
        check_ids(ids, {**kinds, "mask": masks} if self.config.require_masks else kinds, f"split {split}")
        rows: list[ChipRow] = [{"image": frames[0][chip], "mask": masks.get(chip), "id": chip} for chip in ids]
        if self.config.has_frames:
            for row in rows:
                row["image"] = [files[row["id"]] for files in frames]
        return self._date_rows(rows)

    def _date_rows(self, rows: list[ChipRow]) -> list[ChipRow]:
        """Give rows their `date`, or `dates`: of the table where there is one, else of the names of the files."""
        config, table = self.config, {}
        if config.dates is not None:
            endings = [*(suffix for suffix in config.image_suffixes if suffix), *TIFF_SUFFIXES]
            table = _read_dates(_join(config.data_dir, config.dates), endings, self.IDS_HAVE_FOLDERS)
        unknown: list[str | None] = [None] * len(next(iter(table.values()), ()))
        for row in rows:
            image = row["image"]
            granules = [parse_granule_name(path) for path in (image if isinstance(image, list) else [image])]
            days = [None if granule is None else granule.date.date().isoformat() for granule in granules]
            if config.has_frames or table:
                row["dates"] = table.get(row["id"], unknown) if table else days
            else:
                row["date"] = days[0]
        return rows


def _read_dates(path: str, endings: Iterable[str], keep_folders: bool) -> dict[str, list[str | None]]:
    """Read the days of each chip's frames; a first line of names is left out."""
    lines = [line for line in csv.reader(io.StringIO(read_text(path))) if line]
    lines = lines[1:] if lines and not any(character.isdigit() for character in "".join(lines[0][1:])) else lines
    ids = make_ids((line[0].strip() for line in lines), endings, keep_folders=keep_folders)
    counts = {len(line) - 1 for line in lines}
    if len(counts) != 1 or 0 in counts or len(set(ids)) < len(ids):
        raise ValueError(
            f"{path}: expected a line for each chip, once, with its id and the day of each frame, found lines of "
            f"{' and '.join(map(str, sorted(counts))) or 'no'} days for {len(set(ids))} chips in {len(ids)} lines."
        )
    return {chip: [read_day(text, path) for text in line[1:]] for chip, line in zip(ids, lines, strict=True)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _join(*parts: str) -> str:
    return os.path.normpath(os.path.join(*parts))


def _match(folder: str, suffix: str | None, rivals: Iterable[str | None]) -> dict[str, str]:
    """List a folder's files of one suffix as {id: path}, without those that a rival suffix fits at greater length."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"Expected a folder of GeoTIFF files, found none at {folder}. Check the folder options."
        )

    def find_ending(name: str, suffix: str | None) -> str:
        endings = TIFF_SUFFIXES if suffix is None else (normalize_name(suffix),)
        return next((ending for ending in endings if name.endswith(ending)), "")

    found: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):
        name = normalize_name(file)
        ending = find_ending(name, suffix)
        longest = max((len(find_ending(name, rival)) for rival in rivals), default=0)
        if not ending or len(ending) < longest or name.startswith("."):
            continue
        chip = name[: -len(ending)]
        if chip in found:
            raise ValueError(
                f"{folder}: expected one file for {chip}, found {os.path.basename(found[chip])} and {file}. Remove "
                "one, or give the full suffix."
            )
        found[chip] = os.path.join(folder, file)
    return found


def _check_dates(
    frames: Sequence[Mapping[str, str]], masks: Mapping[str, str], suffixes: Sequence[str | None], mask_dir: str
) -> None:
    """Refuse images of several dates each of which would need a mask of its own, where one mask is for all of them."""
    dates: dict[str, list[str]] = {}
    for chip in frames[0] if len(frames) == 1 else ():
        if chip not in masks:
            parts = [mask for mask in masks if mask not in frames[0] and chip.startswith(mask)]
            dates.setdefault(max(parts, key=len, default=""), []).append(chip)
    if "" in dates or not any(len(chips) > 1 for chips in dates.values()):
        return
    mask, chips = next((mask, chips) for mask, chips in dates.items() if len(chips) > 1)
    endings = [f"{chip.removeprefix(mask)}{suffixes[0] or '.tif'}" for chip in chips]
    raise ValueError(
        f"{mask_dir}: expected a mask for each image, found one mask {mask} for {show_some(chips)}. Remedy: where "
        f"they are the dates of one example, name them in order by image_suffix=[{show_some(endings)}] (num_frames="
        f"{len(chips)}); where each is an example, give each a copy of the mask under its own name."
    )


def _check_geotiffs(data_dir: str, folder: str) -> None:
    """Raise unless there is a GeoTIFF below a dataset's folder, or below one of its folders that may be elsewhere."""
    names = list(list_files(data_dir))
    others = list_files(folder) if os.path.isdir(folder) else ()
    if not any(normalize_name(name).endswith(TIFF_SUFFIXES) for name in (*names, *others)):
        found = f"{len(names)} other files ({show_some(names)})" if names else "no file at all"
        packed = any(name.lower().endswith(ARCHIVE_SUFFIXES) for name in names)
        raise FileNotFoundError(
            f"{data_dir}: expected GeoTIFF files (.tif, .tiff) in it or below it, found {found}. "
            f"{'Extract the archives' if packed else 'Check the path'}."
        )


def _suggest_public_dataset(folder: str) -> str:
    """Suggest the datasets that this package knows by the names of a folder's files; empty where there is none."""
    names = find_public_datasets(list_files(folder))
    if not names:
        return ""
    where = f"name it: --dataset {names[0]}" if len(names) == 1 else "point data_dir at the folder of one and name it"
    return f" The files look like those of {' and '.join(names)}, which needs no such options: {where}."
