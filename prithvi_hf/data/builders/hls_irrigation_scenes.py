# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""HLS irrigation scenes: the same chips in four months, one file per month, with masks of 16 classes."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

from datasets.utils import logging

from prithvi_hf.data.builders.base import HubChipBuilder, HubChipConfig, make_features
from prithvi_hf.data.builders.files import ChipRow, index_by_name, list_files
from prithvi_hf.data.builders.splits import check_split_options, divide_groups, find_tiles


logger = logging.get_logger(__name__)

HLS_IRRIGATION_SCENES_BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
"""Names of the 6 bands of a month's image, in file order."""
HLS_IRRIGATION_SCENES_CLASSES = tuple(f"class_{value}" for value in range(1, 17))
"""Names of the classes, mask values 1 to 16; the publishers name none. Mask values 0 and 255 are nodata."""
HLS_IRRIGATION_SCENES_CLASS_COLORS = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7"),
    *("#9c755f", "#bab0ac", "#1f4e79", "#8cd17d", "#b6992d", "#5b2a86", "#d37295", "#79706e"),
)
"""Colours of the classes, for maps."""
HLS_IRRIGATION_SCENES_MONTHS = (1, 2, 3, 4)
"""Months that the dataset holds; 1, 2 and 3 are June, July and August."""

_FRACTIONS = {"train": 70, "validation": 15, "test": 15}
_MISSING = ("error", "skip")
_EXAMPLES = 20

_DESCRIPTION = (
    "Chips of 512 x 512 pixels at 30 m, Harmonized Landsat Sentinel-2 images of 6 bands in four months of a growing "
    "season, one file per month, with masks of 16 classes (1 to 16; 0 and 255 nodata)."
)


@dataclass
class HLSIrrigationScenesConfig(HubChipConfig):
    """Options of [`HLSIrrigationScenes`].

    Args:
        months (`list[int]`, *optional*, defaults to `[1, 2, 3]`): months to use as frames, in this order, of 1 to 4;
            1, 2 and 3 are June, July and August.
        missing (`str`, *optional*, defaults to "error"): what becomes of chips that lack one of these months, or the
            mask: "error" names them, "skip" leaves them out and says how many.
        split_seed (`int`, *optional*, defaults to 0): how MGRS tiles are divided among the splits.
        repository, revision (`str`, *optional*): as in [`HubChipConfig`].
    """

    months: list[int] = field(default_factory=lambda: [1, 2, 3])
    missing: str = "error"
    split_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split_options("hls_irrigation_scenes", self.split_seed)
        if self.missing not in _MISSING:
            raise ValueError(
                f"hls_irrigation_scenes: expected missing among {list(_MISSING)}, found {self.missing!r}."
            )
        months = self.months if isinstance(self.months, list | tuple) else []
        known = all(type(month) is int and month in HLS_IRRIGATION_SCENES_MONTHS for month in months)
        if not months or not known or len(set(months)) < len(months):
            raise ValueError(
                "hls_irrigation_scenes: expected months as a list of different numbers among "
                f"{list(HLS_IRRIGATION_SCENES_MONTHS)}, found {self.months!r}."
            )


class HLSIrrigationScenes(HubChipBuilder):
    """Builder of the HLS irrigation scenes.

    `data_dir` holds, at any depth, scenes `month1/scene_m01_T10SFG_chip22.tif`, `month2/scene_m02_...` to `month4` and
    masks `masks/mask_T10SFG_chip22.tif`. Files are known by their names, wherever they are. Without `data_dir` the
    data are downloaded from the Hub.

    Splits: there are no published ones (the original trains, validates and tests on the same chips). MGRS tiles are
    divided, about 70 : 15 : 15 by chips, none of them on two sides. Fewer than three tiles are divided by chip, with a
    warning.

    Rows: `image` (a list of GeoTIFFs, one per month, of 6 bands named by `HLS_IRRIGATION_SCENES_BANDS`), `mask`, `id`
    ("T10SFG_chip22"), `dates` (None for each month: the file names give no year and no day).
    """

    DATASET_NAME: ClassVar[str] = "hls_irrigation_scenes"
    IMAGE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"scene_m\d+_.+\.tif")
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/hls_irrigation_scenes"
    BUILDER_CONFIG_CLASS = HLSIrrigationScenesConfig
    DESCRIPTION = _DESCRIPTION
    CITATION = LICENSE = f"See the dataset's page: https://huggingface.co/datasets/{REPOSITORY}"
    FEATURES = make_features(
        HLS_IRRIGATION_SCENES_BANDS,
        HLS_IRRIGATION_SCENES_CLASSES,
        HLS_IRRIGATION_SCENES_CLASS_COLORS,
        frames_are_files=True,
        multi_date=True,
    )

    def _make_folder_rows(self, data_dir: str) -> dict[str, list[ChipRow]]:
        paths = list_files(data_dir)
        months = "|".join(map(str, self.config.months))
        scene, mask = re.compile(rf"scene_m0({months})_(.+)\.tif"), re.compile(r"mask_(.+)\.tif")
        masks = {name[5:-4]: path for name, path in index_by_name(paths, mask, data_dir).items()}
        scenes: dict[int, dict[str, str]] = {month: {} for month in self.config.months}
        for name, path in index_by_name(paths, scene, data_dir).items():
            if match := scene.fullmatch(name):
                scenes[int(match[1])][match[2]] = path
        if not any(scenes.values()):
            raise FileNotFoundError(
                f"{data_dir}: expected scenes such as month1/scene_m01_T10SFG_chip22.tif, found none of months "
                f"{self.config.months}. Point data_dir at the folder that holds month1 to month4 and masks, or use "
                "geotiff_folder for files of your own."
            )
        kinds = {**{f"month {month}": files for month, files in scenes.items()}, "mask": masks}
        everywhere = sorted(set().union(*kinds.values()))
        lacking = {chip: [kind for kind, files in kinds.items() if chip not in files] for chip in everywhere}
        chips = [chip for chip in everywhere if not lacking[chip]]
        if len(chips) < len(everywhere):
            incomplete = [f"{chip} (no {', no '.join(lacking[chip])})" for chip in everywhere if lacking[chip]]
            rest = f" and {len(incomplete) - _EXAMPLES} more" if len(incomplete) > _EXAMPLES else ""
            expected = (
                f"{data_dir}: expected {', '.join(kinds)} of each of {len(everywhere)} chips, found {len(incomplete)} "
                f"incomplete: {', '.join(incomplete[:_EXAMPLES])}{rest}"
            )
            if self.config.missing == "error":
                raise FileNotFoundError(f"{expected}. Add the files, or leave these chips out with missing='skip'.")
            if not chips:
                raise ValueError(f"{expected}: no chip is complete. Choose other months, or add the files.")
            logger.warning(f"{self.DATASET_NAME}: {len(incomplete)} chips are left out; {expected}.")
        groups, kind = find_tiles(chips, self.DATASET_NAME), "MGRS tiles"
        if len(set(groups.values())) < len(_FRACTIONS):
            logger.warning(
                f"{self.DATASET_NAME}: {len(set(groups.values()))} MGRS tile(s) cannot be divided among "
                f"{', '.join(_FRACTIONS)}, so chips of one tile are on several sides: the test is not independent."
            )
            groups, kind = {chip: chip for chip in chips}, "chips"
        splits = divide_groups(groups, _FRACTIONS, self.config.split_seed, self.DATASET_NAME, kind)
        rows: dict[str, list[ChipRow]] = {split: [] for split in splits}
        for split, members in splits.items():
            for chip in members:
                frames = [files[chip] for files in scenes.values()]
                rows[split].append({"image": frames, "mask": masks[chip], "id": chip, "dates": [None] * len(frames)})
        return rows
