# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""HLS burn scars: Harmonized Landsat Sentinel-2 chips of wildfires in the United States with masks of burnt land."""

import re
from typing import ClassVar

from prithvi_hf.data.builders.base import OfficialSplitsBuilder, make_features
from prithvi_hf.data.builders.files import ChipRow, check_ids, find_folders, index_by_chip, list_files, read_day
from prithvi_hf.data.builders.splits import arrange_splits, find_tiles


HLS_BURN_SCARS_BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
"""Names of the 6 bands of an image, in file order (HLS S30 B02, B03, B04, B8A, B11, B12)."""
HLS_BURN_SCARS_CLASSES = ("unburnt land", "burn scar")
"""Class names by mask value; mask value -1 is nodata."""
HLS_BURN_SCARS_CLASS_COLORS = ("#8a9a5b", "#d1495b")
"""Colours of the classes, for maps."""

_FOLDERS = {"train": "training", "validation": "validation"}
_IMAGE_SUFFIX, _MASK_SUFFIX = "_merged.tif", ".mask.tif"
# Year and day of the year, between dots: "HLS.S30.T10SEH.2018190.v1.4".
_DAY = re.compile(r"\.(\d{7})(?=\.|$)")

_DESCRIPTION = (
    "804 chips of 512 x 512 pixels at 30 m around wildfires in the contiguous United States, 2018 to 2021: Harmonized "
    "Landsat Sentinel-2 images of 6 bands (surface reflectance 0..1, float32, nodata -9999) with masks of burn scars "
    "(-1 nodata, 0 unburnt land, 1 burn scar)."
)
_CITATION = """@software{HLS_Foundation_2023,
  author = {Phillips, Christopher and Roy, Sujit and Ankur, Kumar and Ramachandran, Rahul},
  title = {HLS Foundation Burnscars Dataset},
  doi = {10.57967/hf/0956},
  url = {https://huggingface.co/ibm-nasa-geospatial/hls_burn_scars},
  year = {2023}
}"""


class HLSBurnScars(OfficialSplitsBuilder):
    """Builder of the HLS burn scars.

    `data_dir` is the folder that holds `training` and `validation`, or any folder above it, with the official file
    names `subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif` and `....v1.4.mask.tif`. Without `data_dir` the
    archive of the Hub (2.65 GB) is downloaded and extracted.

    Splits, with options [`OfficialSplitsConfig`]: the original tests on its validation chips, and so does "published".
    With "three_way" no MGRS tile of `test` is in `validation` or `train`; `train` and `validation` may share tiles as
    they were published.

    Rows: `image` (6 bands, named by `HLS_BURN_SCARS_BANDS`), `mask`, `id` (the file name without suffix), `date` (ISO
    day from the file name, None where it holds none).
    """

    DATASET_NAME: ClassVar[str] = "hls_burn_scars"
    IMAGE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"subsetted_.+_merged\.tif")
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/hls_burn_scars"
    DESCRIPTION, CITATION = _DESCRIPTION, _CITATION
    FEATURES = make_features(HLS_BURN_SCARS_BANDS, HLS_BURN_SCARS_CLASSES, HLS_BURN_SCARS_CLASS_COLORS)

    def _make_folder_rows(self, data_dir: str) -> dict[str, list[ChipRow]]:
        folders = find_folders(list_files(data_dir), list(_FOLDERS.values()), data_dir)
        rows: dict[str, list[ChipRow]] = {}
        for split, name in _FOLDERS.items():
            if name not in folders:
                continue
            source = f"{self.DATASET_NAME}, {data_dir}, folder {name}"
            images, masks = (index_by_chip(folders[name], suffix) for suffix in (_IMAGE_SUFFIX, _MASK_SUFFIX))
            chips = sorted({*images, *masks})
            check_ids(chips, {"image": images, "mask": masks}, source)
            rows[split] = []
            for chip in chips:
                match = _DAY.search(chip)
                day = read_day(match[1], f"{source}, {chip}") if match else None
                rows[split].append({"image": images[chip], "mask": masks[chip], "id": chip, "date": day})
        scheme, seed = self.config.split_scheme, self.config.split_seed
        return arrange_splits(self.DATASET_NAME, rows, scheme, seed, find_tiles, "MGRS tiles")
