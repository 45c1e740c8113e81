# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""HLS multi-temporal crop classification: three dates of a season in one file, with masks of 13 land covers."""

import csv
import io
import re
from typing import ClassVar

from datasets.utils import logging

from prithvi_hf.data.builders.base import OfficialSplitsBuilder, make_features
from prithvi_hf.data.builders.files import (
    ChipRow,
    check_ids,
    find_folders,
    index_by_chip,
    index_by_name,
    list_files,
    make_ids,
    read_day,
    read_ids,
    read_text,
)
from prithvi_hf.data.builders.splits import arrange_splits, find_blocks


logger = logging.get_logger(__name__)

MULTI_TEMPORAL_CROP_BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
"""Names of the 6 bands of each date, in file order; a file holds them once for each of its dates, date by date."""
MULTI_TEMPORAL_CROP_FRAMES = 3
"""Number of dates in a file."""
MULTI_TEMPORAL_CROP_CLASSES = (
    *("Natural Vegetation", "Forest", "Corn", "Soybeans", "Wetlands", "Developed/Barren", "Open Water"),
    *("Winter Wheat", "Alfalfa", "Fallow/Idle Cropland", "Cotton", "Sorghum", "Other"),
)
"""Class names, mask values 1 to 13; mask value 0 is nodata."""
MULTI_TEMPORAL_CROP_CLASS_COLORS = (
    *("#b5c98e", "#2f6b3a", "#f2c230", "#3f9b3f", "#7fb3b0", "#9a9a9a", "#3a6fb0"),
    *("#a5702b", "#e08fb5", "#d8c9a3", "#e0413c", "#ef8a2b", "#6b4a8e"),
)
"""Colours of the classes, for maps."""

_FOLDERS = {"train": "training_chips", "validation": "validation_chips"}
# The first name is the Hub's, the second what its card and other copies say.
_LISTS = {"train": ("training_data.txt", "train_data.txt"), "validation": ("validation_data.txt",)}
_TABLES = re.compile(r"(training|train|validation)_data\.txt|chips_df\.csv")
_IMAGE_SUFFIX, _MASK_SUFFIX = "_merged.tif", ".mask.tif"
_ID_SUFFIXES = (_IMAGE_SUFFIX, _MASK_SUFFIX, "_merged", ".mask", ".tif")
_DATES = "chips_df.csv"
_DATE_COLUMNS = ("first_img_date", "middle_img_date", "last_img_date")

_DESCRIPTION = (
    "3,854 chips of 224 x 224 pixels at 30 m across the contiguous United States, 2022: Harmonized Landsat Sentinel-2 "
    "images of three dates of the growing season in one file of 18 bands, 6 per date (surface reflectance x 10000, "
    "int16), with masks of land cover and crops from the USDA Cropland Data Layer (0 nodata, 1 to 13)."
)
_CITATION = """@misc{hls-multi-temporal-crop-classification,
  author = {Cecil, Michael and Kordi, Fatemeh and Li, Hanxi (Steve) and Khallaghi, Sam and Alemohammad, Hamed},
  title = {HLS Multi Temporal Crop Classification},
  doi = {10.57967/hf/0955},
  url = {https://huggingface.co/ibm-nasa-geospatial/multi-temporal-crop-classification},
  year = {2023}
}"""


class MultiTemporalCrop(OfficialSplitsBuilder):
    """Builder of the multi-temporal crop classification.

    `data_dir` holds, at any depth, the folders `training_chips` and `validation_chips` with files
    `chip_328_501_merged.tif` and `chip_328_501.mask.tif`, the lists `training_data.txt` and `validation_data.txt` (an
    id or file name per line), and the dates in `chips_df.csv`. Without a list all chips of its folder are used,
    without the table dates are None; a warning says so. Without `data_dir` the archives of the Hub are downloaded and
    extracted.

    Splits, with options [`OfficialSplitsConfig`]: the original tests on its validation chips, and so does "published".
    The two numbers of an id such as chip_328_501 are row and column of the grid that chips were drawn from: with
    "three_way" no chip of `test` touches one of `validation` or `train` there, neither directly nor through others.

    Rows: `image` (18 bands: `MULTI_TEMPORAL_CROP_BANDS` for each date in turn), `mask`, `id` ("chip_328_501"),
    `dates` (the ISO days of the three dates, None where there is none).
    """

    DATASET_NAME: ClassVar[str] = "multi_temporal_crop"
    IMAGE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"chip_\d+_\d+_merged\.tif")
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/multi-temporal-crop-classification"
    DESCRIPTION, CITATION = _DESCRIPTION, _CITATION
    FEATURES = make_features(
        MULTI_TEMPORAL_CROP_BANDS * MULTI_TEMPORAL_CROP_FRAMES,
        MULTI_TEMPORAL_CROP_CLASSES,
        MULTI_TEMPORAL_CROP_CLASS_COLORS,
        multi_date=True,
    )

    def _make_folder_rows(self, data_dir: str) -> dict[str, list[ChipRow]]:
        paths = list_files(data_dir)
        folders = find_folders(paths, list(_FOLDERS.values()), data_dir)
        tables = index_by_name(paths, _TABLES, data_dir)
        if _DATES not in tables:
            logger.warning(f"{self.DATASET_NAME}: no {_DATES} found beside the chips, so their dates are None.")
        dates = _read_dates(tables[_DATES]) if _DATES in tables else {}
        rows: dict[str, list[ChipRow]] = {}
        for split, name in _FOLDERS.items():
            if name not in folders:
                continue
            images, masks = (index_by_chip(folders[name], suffix) for suffix in (_IMAGE_SUFFIX, _MASK_SUFFIX))
            chips, source = sorted({*images, *masks}), f"{self.DATASET_NAME}, folder {name}"
            lists = [tables[name] for name in _LISTS[split] if name in tables]
            if len(lists) > 1:
                raise ValueError(
                    f"{data_dir}: expected one file named {' or '.join(_LISTS[split])}, found {' and '.join(lists)}. "
                    "Remove all but one."
                )
            if lists:
                source = f"{source}, list {lists[0]}"
                listed = read_ids(lists[0], _ID_SUFFIXES)
                if unused := set(chips) - set(listed):
                    logger.warning(
                        f"{source}: {len(unused)} chips of the folder are not in the list and are not used."
                    )
                chips = listed
            else:
                logger.warning(f"{source}: no {_LISTS[split][0]} found, so all of its {len(chips)} chips are used.")
            check_ids(chips, {"image": images, "mask": masks}, source)
            none: list[str | None] = [None] * MULTI_TEMPORAL_CROP_FRAMES
            rows[split] = [
                {"image": images[chip], "mask": masks[chip], "id": chip, "dates": dates.get(chip, none)}
                for chip in chips
            ]
        scheme, seed = self.config.split_scheme, self.config.split_seed
        return arrange_splits(self.DATASET_NAME, rows, scheme, seed, find_blocks, "blocks of chips")


def _read_dates(path: str) -> dict[str, list[str | None]]:
    """Read the ISO days of each chip's dates."""
    table = csv.DictReader(io.StringIO(read_text(path)))
    missing = [name for name in ("chip_id", *_DATE_COLUMNS) if name not in (table.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path}: expected columns chip_id, {', '.join(_DATE_COLUMNS)}, found {table.fieldnames}: "
            f"{', '.join(missing)} missing. Download {_DATES} again, or remove it to go without dates."
        )
    dates = {}
    for row in table:
        (chip,) = make_ids([(row["chip_id"] or "").strip()], _ID_SUFFIXES)
        chip = f"chip_{chip}" if re.fullmatch(r"\d+_\d+", chip) else chip
        dates[chip] = [read_day(row[name] or "", path) for name in _DATE_COLUMNS]
    return dates
