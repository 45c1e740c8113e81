# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""HLS multi-temporal crop classification: three dates of a season in one file, with masks of 13 land covers."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from datasets import DatasetInfo
from datasets.utils import logging

from prithvi_hf.data.builders.base import OfficialSplitsBuilder, OfficialSplitsConfig, chip_features
from prithvi_hf.data.builders.files import (
    by_chip,
    check_ids,
    decode_text,
    find_file,
    find_folders,
    list_files,
    parse_id_list,
    strip_suffix,
)
from prithvi_hf.data.builders.splits import grid_blocks


logger = logging.get_logger(__name__)

MULTI_TEMPORAL_CROP_BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
"""Names of the 6 bands of each date, in file order; a file holds them once for each of its dates, date by date."""
MULTI_TEMPORAL_CROP_FRAMES = 3
"""Number of dates in a file."""
MULTI_TEMPORAL_CROP_CLASSES = (
    *("Natural Vegetation", "Forest", "Corn", "Soybeans", "Wetlands", "Developed/Barren", "Open Water"),
    *("Winter Wheat", "Alfalfa", "Fallow/Idle Cropland", "Cotton", "Sorghum", "Other"),
)
"""Class names, mask values 1 to 13; mask value 0 is no data."""
MULTI_TEMPORAL_CROP_CLASS_COLORS = (
    *("#b5c98e", "#2f6b3a", "#f2c230", "#3f9b3f", "#7fb3b0", "#9a9a9a", "#3a6fb0"),
    *("#a5702b", "#e08fb5", "#d8c9a3", "#e0413c", "#ef8a2b", "#6b4a8e"),
)
"""Colours of the classes, for maps."""
MULTI_TEMPORAL_CROP_IGNORED_VALUE = 0
"""Mask value of pixels that carry no label."""

_FOLDERS = {"train": "training_chips", "validation": "validation_chips"}
# The first name is the Hub's, the second what its card and other copies say.
_LISTS = {"train": ("training_data.txt", "train_data.txt"), "validation": ("validation_data.txt",)}
_IMAGE_SUFFIX, _MASK_SUFFIX = "_merged.tif", ".mask.tif"
_ID_SUFFIXES = (_IMAGE_SUFFIX, _MASK_SUFFIX, "_merged", ".mask", ".tif")
_DATES = "chips_df.csv"
_DATE_COLUMNS = ("first_img_date", "middle_img_date", "last_img_date")
_DAY = re.compile(r"(\d{4})[-/]?(\d{2})[-/]?(\d{2})(?=$|[T ])")

_DESCRIPTION = (
    "3,854 chips of 224 x 224 pixels at 30 m across the contiguous United States, 2022: Harmonized Landsat Sentinel-2 "
    "images of three dates of the growing season in one file of 18 bands, 6 a date, date by date (surface reflectance "
    "x 10000, int16), with masks of land cover and crops from the USDA Cropland Data Layer (0 no data, 1 to 13)."
)
_CITATION = """@misc{hls-multi-temporal-crop-classification,
  author = {Cecil, Michael and Kordi, Fatemeh and Li, Hanxi (Steve) and Khallaghi, Sam and Alemohammad, Hamed},
  title = {HLS Multi Temporal Crop Classification},
  doi = {10.57967/hf/0955},
  url = {https://huggingface.co/ibm-nasa-geospatial/multi-temporal-crop-classification},
  year = {2023}
}"""


@dataclass
class MultiTemporalCropConfig(OfficialSplitsConfig):
    """Options of [`MultiTemporalCrop`]: those of [`OfficialSplitsConfig`].

    The two numbers of an id such as chip_328_501 are row and column of the grid that chips were drawn from. There
    "three_way" keeps chips that touch, also at a corner, on one side.
    """


class MultiTemporalCrop(OfficialSplitsBuilder):
    """Builder of the multi-temporal crop classification.

    `data_dir` holds, at any depth, the folders `training_chips` and `validation_chips` with files
    `chip_328_501_merged.tif` and `chip_328_501.mask.tif`, the lists `training_data.txt` and `validation_data.txt` (an
    id or file name a line), and the dates in `chips_df.csv`. Without a list all chips of its folder are used, without
    the table dates are None; a warning says so. Without `data_dir` the archives of the Hub are downloaded and
    extracted.

    Splits: the original tests on its validation chips, and so does "published". With "three_way" no chip of `test`
    touches one of `validation` or `train`, neither directly nor through others.

    Rows: `image` (18 bands: `MULTI_TEMPORAL_CROP_BANDS` for each date in turn), `mask`, `id` ("chip_328_501"),
    `dates` (the ISO days of the three dates, None where there is none).

    Raises:
        FileNotFoundError: no such folder, no folder of chips in it, or a listed chip, an image or a mask missing.
        ValueError: two such folders or lists, an empty list, a chip listed twice or in both lists, or dates that are
            no days.
    """

    DATASET_NAME: ClassVar[str] = "multi_temporal_crop"
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/multi-temporal-crop-classification"
    BUILDER_CONFIG_CLASS = MultiTemporalCropConfig
    VERSION = "1.0.0"

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            homepage=f"https://huggingface.co/datasets/{self.REPOSITORY}",
            license="cc-by-4.0",
            features=chip_features(
                MULTI_TEMPORAL_CROP_BANDS * MULTI_TEMPORAL_CROP_FRAMES,
                MULTI_TEMPORAL_CROP_CLASSES,
                MULTI_TEMPORAL_CROP_CLASS_COLORS,
                multi_date=True,
            ),
        )

    def _rows_of_folder(self, data_dir: str) -> Mapping[str, list[dict[str, Any]]]:
        paths = list_files(data_dir)
        folders = find_folders(paths, list(_FOLDERS.values()), data_dir)
        dates = _read_dates(find_file(paths, [_DATES], data_dir))
        rows = {
            split: _split_rows(split, folders[name], find_file(paths, _LISTS[split], data_dir), dates)
            for split, name in _FOLDERS.items()
            if name in folders
        }
        return self._arrange(rows, grid_blocks, "blocks of chips")


def _split_rows(
    split: str, files: Mapping[str, str], id_list: str | None, dates: Mapping[str, list[str | None]]
) -> dict[str, dict[str, Any]]:
    """Pairs the files of a folder, as far as its list names them; rows by chip id."""
    images, masks = by_chip(files, _IMAGE_SUFFIX), by_chip(files, _MASK_SUFFIX)
    folder, chips = _FOLDERS[split], sorted({*images, *masks})
    source = f"multi_temporal_crop, folder {folder}"
    if id_list is None:
        logger.warning(f"{source}: no {_LISTS[split][0]} found, so all of its {len(chips)} chips are used.")
    else:
        source = f"{source}, list {id_list}"
        listed = parse_id_list(decode_text(Path(id_list).read_bytes(), id_list), _ID_SUFFIXES)
        _report_unlisted(set(chips) - set(listed), source)
        chips = listed
    check_ids(chips, {"image": images, "mask": masks}, source)
    none = [None] * MULTI_TEMPORAL_CROP_FRAMES
    return {
        chip: {"image": images[chip], "mask": masks[chip], "id": chip, "dates": dates.get(chip, none)}
        for chip in chips
    }


def _report_unlisted(chips: set[str], source: str) -> None:
    if chips:
        logger.warning(f"{source}: {len(chips)} chips of the folder are not in the list and are not used.")


def _read_dates(path: str | None) -> dict[str, list[str | None]]:
    """Reads the ISO days of each chip's dates; none if there is no table."""
    if path is None:
        logger.warning(f"multi_temporal_crop: no {_DATES} found beside the chips, so their dates are None.")
        return {}
    table = csv.DictReader(io.StringIO(decode_text(Path(path).read_bytes(), path)))
    absent = [name for name in ("chip_id", *_DATE_COLUMNS) if name not in (table.fieldnames or ())]
    if absent:
        raise ValueError(
            f"{path}: expected columns chip_id, {', '.join(_DATE_COLUMNS)}, found {table.fieldnames}: "
            f"{', '.join(absent)} missing. Download {_DATES} again, or remove it to go without dates."
        )
    return {_chip_id(row["chip_id"]): [_iso_day(row[name], path) for name in _DATE_COLUMNS] for row in table}


def _chip_id(text: str) -> str:
    name = strip_suffix((text or "").strip(), _ID_SUFFIXES)
    return f"chip_{name}" if re.fullmatch(r"\d+_\d+", name) else name


def _iso_day(text: str | None, path: str) -> str | None:
    text = (text or "").strip()
    if text.lower() in ("", "nan", "nat", "none"):
        return None
    match = _DAY.match(text)
    try:
        return date.fromisoformat("-".join(match.groups()) if match else text).isoformat()
    except ValueError as error:
        raise ValueError(
            f"{path}: expected days such as 2022-06-21, found {text!r}. Correct it, leave it empty, or remove the "
            "file to go without dates."
        ) from error
