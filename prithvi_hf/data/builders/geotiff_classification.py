# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The user's own chips with labels as a whole: a folder of GeoTIFF images per class, or a table of labels."""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import datasets

from prithvi_hf.data.builders.base import AnyDownloadManager, make_features
from prithvi_hf.data.builders.files import (
    ChipRow,
    check_ids,
    list_files,
    make_ids,
    normalize_name,
    read_text,
    show_some,
)
from prithvi_hf.data.builders.geotiff_folder import SPLIT_FOLDERS, GeoTiffFolder, GeoTiffFolderConfig
from prithvi_hf.data.chip_labels import SEPARATOR
from prithvi_hf.rasters import TIFF_SUFFIXES


_TABLE = "metadata.csv"
_CELLS = {**dict.fromkeys(("1", "1.0", "true", "yes"), True), **dict.fromkeys(("", "0", "0.0", "false", "no"), False)}


@dataclass
class GeoTiffClassificationConfig(GeoTiffFolderConfig):
    """Options of [`GeoTiffClassification`]; paths are relative to `data_dir`, or absolute.

    Args:
        image_suffix, image_dir, splits, dates (*optional*): as in [`GeoTiffFolderConfig`]; lists may name chips with
            their folder ("Forest/a"). The options of masks are not for this dataset.
        table (`str`, *optional*): CSV file of the labels. None takes `metadata.csv` in the folder of the images or in
            `data_dir`, and where there is none the name of the folder that an image is in.
        file_column (`str`, *optional*, defaults to `"file_name"`): column of file names, with or without folders and
            suffix.
        label_columns (`str` or `list[str]`, *optional*): column of the label, by default `label` or `labels`, in which
            ";" separates several; or a list of columns, one per class and named like it, of 0 and 1. A column `split`
            divides the chips where there are neither `splits` nor folders of splits.
    """

    table: str | None = None
    file_column: str = "file_name"
    label_columns: str | list[str] | tuple[str, ...] | None = None
    require_masks: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.require_masks or self.mask_suffix is not None or self.mask_dir != self.image_dir:
            raise ValueError(
                "geotiff_classification: expected no mask_suffix, mask_dir or require_masks, for a chip has one label "
                "as a whole. Leave them out, or use geotiff_folder for masks."
            )


class GeoTiffClassification(GeoTiffFolder):
    """Builder of a dataset from the user's own GeoTIFF files with one label, or several, for each image.

    Layouts, each whole, in folders of splits, or divided by lists (`splits`) or by a column `split` of the table:

    - a folder per class: `train/Forest/a.tif`, `train/River/b.tif`;
    - images in a folder with any folders below it, and a table with columns `file_name` and `label`.

    Rows: `image` (GeoTIFF, or a list of frames), `label` (text; several classes are separated by ";"), `id` (file name
    without suffix, with the folders below the images' own), `date` or `dates` as of [`GeoTiffFolder`].
    """

    DATASET_NAME: ClassVar[str] = "geotiff_classification"
    BUILDER_CONFIG_CLASS = GeoTiffClassificationConfig
    IDS_HAVE_FOLDERS: ClassVar[bool] = True

    def _info(self) -> datasets.DatasetInfo:
        super()._info()  # checks the options
        frames = self.config.has_frames
        features = make_features(frames_are_files=frames, multi_date=frames or self.config.dates is not None)
        features["label"] = datasets.Value("string")
        del features["mask"]
        return datasets.DatasetInfo(description="Georeferenced chips with labels as a whole.", features=features)

    def _make_rows(self, dl_manager: AnyDownloadManager) -> dict[str, list[ChipRow]]:
        config, folder = self.config, os.path.join(self.config.data_dir, self.config.image_dir)
        usual = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
        has_folders = any(self._find_split_folders(name) for name in usual)
        table = self._find_table(folder)
        if config.splits is None and not has_folders and table is not None:
            names: dict[str, list[str]] = {}
            for name, (_, split) in self._read_table(table).items():
                names.setdefault(usual.get(split.lower(), split), []).append(name)
            if set(names) != {""}:
                return {split: self._pair(folder, folder, split, chips) for split, chips in names.items()}
        return super()._make_rows(dl_manager)

    def _find_table(self, folder: str) -> str | None:
        """Find the table of the images of a folder; None where their folders are their labels."""
        config = self.config
        if config.table is None:
            places = [os.path.join(place, _TABLE) for place in (folder, config.data_dir)]
            return next((place for place in places if os.path.isfile(place)), None)
        place = os.path.join(config.data_dir, config.table)
        if not os.path.isfile(place):
            raise FileNotFoundError(f"Expected a table of labels at {place}, found none. Check the option table.")
        return place

    def _read_table(self, path: str) -> dict[str, tuple[str, str]]:
        """Read label and split ("" without such a column) of each file name, which has no suffix any more."""
        config, columns = self.config, self.config.label_columns
        rows = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
        header = list(rows.fieldnames or ())
        if columns is None:
            columns = next((name for name in ("label", "labels") if name in header), "label")
        classes = [] if isinstance(columns, str) else list(columns)
        missing = [name for name in [config.file_column, *(classes or [columns])] if name not in header]
        if missing:
            raise ValueError(
                f"{path}: expected columns {config.file_column} and {columns}, found {', '.join(header) or 'none'}. "
                "Name them with file_column and label_columns."
            )
        found: dict[str, tuple[str, str]] = {}
        for row in rows:
            cells = {name: (row[name] or "").strip() for name in header}
            [name] = make_ids([cells[config.file_column]], self._suffixes, keep_folders=True)
            wrong = [cells[one] for one in classes if cells[one].lower() not in _CELLS]
            if wrong or name in found:
                problem = f"0 or 1 for each class, found {wrong[0]!r}" if wrong else "each file once, found it again"
                raise ValueError(f"{path}: {cells[config.file_column]}: expected {problem}. Correct the table.")
            label = SEPARATOR.join(one for one in classes if _CELLS[cells[one].lower()])
            found[name] = (label if classes else cells[str(columns)], cells.get("split", ""))
        return found

    @property
    def _suffixes(self) -> list[str]:
        return [*(suffix for suffix in self.config.image_suffixes if suffix), *TIFF_SUFFIXES]

    def _pair(self, image_dir: str, mask_dir: str, split: str, ids: list[str] | None = None) -> list[ChipRow]:
        """Pair the images below a folder with their labels; ids name and order the chips that are wanted."""
        config, table = self.config, self._find_table(image_dir)
        relative = {normalize_name(name): path for name, path in list_files(image_dir).items()}
        frames: list[dict[str, str]] = []
        for suffix in config.image_suffixes:
            endings = TIFF_SUFFIXES if suffix is None else (normalize_name(suffix),)
            paths = [(name, next((end for end in endings if name.endswith(end)), None)) for name in relative]
            frames.append({name.removesuffix(end): relative[name] for name, end in paths if end})
        chips = sorted(set().union(*frames))
        # A chip may be called by its path from any of these folders, or by its file name alone.
        roots = {image_dir, config.data_dir, *([os.path.dirname(table)] if table else [])}
        called: dict[str, list[str]] = {}
        for chip in chips:
            own = {os.path.relpath(os.path.join(image_dir, chip), root).replace(os.sep, "/") for root in roots}
            for name in own | {chip.rpartition("/")[2]}:
                called.setdefault(name, []).append(chip)
        # Lists of other copies of a dataset name its pictures: a.jpg is a.tif here.
        ids = ids and [name if name in called else os.path.splitext(name)[0] for name in ids]
        texts = {} if table is None else self._read_table(table)
        labels = {chip: chip.split("/")[0] for chip in chips if "/" in chip}
        if table is not None:
            labels = {chip: texts[name][0] for name in texts for chip in called.get(name, [name])}
            if os.path.dirname(table) == os.path.normpath(image_dir) and ids is None:
                chips += [name for name in texts if name not in called]
        several = {name: called[name] for name in (*texts, *(ids or ())) if len(called.get(name, ())) > 1}
        for name, same in several.items():
            raise ValueError(
                f"Split {split}: expected one image {name}, found {show_some(same)}. Write its folder before its name."
            )
        wanted = chips if ids is None else [called.get(name, [name])[0] for name in ids]
        kinds: dict[str, Mapping[str, str]] = {
            f"frame {i}" if len(frames) > 1 else "image": files for i, files in enumerate(frames, 1)
        }
        hint = "" if table else f"; without {_TABLE} an image's folder is its label"
        check_ids(wanted, {**kinds, "label": labels}, f"split {split} ({image_dir}{hint})")
        rows: list[ChipRow] = []
        for chip in wanted:
            image = [files[chip] for files in frames]
            rows.append({"image": image if config.has_frames else image[0], "label": labels[chip], "id": chip})
        return self._date_rows(rows)
