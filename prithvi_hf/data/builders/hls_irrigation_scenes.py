# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""HLS irrigation scenes: the same chips in four months, one file a month, with masks of 16 classes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from datasets import DatasetInfo
from datasets.utils import logging

from prithvi_hf.data.builders.base import HubChipBuilder, HubChipConfig, chip_features
from prithvi_hf.data.builders.files import list_files
from prithvi_hf.data.builders.splits import check_split_options, divide, tiles_of


logger = logging.get_logger(__name__)

HLS_IRRIGATION_SCENES_BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
"""Names of the 6 bands of a month's image, in file order."""
HLS_IRRIGATION_SCENES_CLASSES = tuple(f"class_{value}" for value in range(1, 17))
"""Names of the classes, mask values 1 to 16; the publishers name none. Mask values 0 and 255 are no data."""
HLS_IRRIGATION_SCENES_CLASS_COLORS = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7"),
    *("#9c755f", "#bab0ac", "#1f4e79", "#8cd17d", "#b6992d", "#5b2a86", "#d37295", "#79706e"),
)
"""Colours of the classes, for maps."""
HLS_IRRIGATION_SCENES_IGNORED_VALUES = (0, 255)
"""Mask values of pixels that carry no label."""
HLS_IRRIGATION_SCENES_MONTHS = (1, 2, 3, 4)
"""Months that the data set holds; 1, 2 and 3 are June, July and August."""

_SCENE = re.compile(r"scene_m(\d{2})_(.+)\.tif")
_MASK = re.compile(r"mask_(.+)\.tif")
_SHARES = {"train": 70, "validation": 15, "test": 15}
_MISSING = ("error", "skip")
_EXAMPLES = 20

_DESCRIPTION = (
    "Chips of 512 x 512 pixels at 30 m, Harmonized Landsat Sentinel-2 images of 6 bands in four months of a growing "
    "season, one file a month, with masks of 16 classes (1 to 16; 0 and 255 no data)."
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
        repository (`str`, *optional*): as in [`HubChipConfig`].
        revision (`str`, *optional*): as in [`HubChipConfig`].
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
    masks `masks/mask_T10SFG_chip22.tif`. Files are known by their names, wherever they lie. Without `data_dir` the
    data are downloaded from the Hub.

    Splits: there are no published ones (the original trains, validates and tests on the same chips). MGRS tiles are
    divided, about 70 : 15 : 15 by chips, none of them on two sides. Fewer than three tiles are divided by chip, with a
    warning.

    Rows: `image` (a list of GeoTIFFs, one a month, of 6 bands named by `HLS_IRRIGATION_SCENES_BANDS`), `mask`, `id`
    ("T10SFG_chip22"), `dates` (None for each month: the file names give no year and no day).

    Raises:
        FileNotFoundError: no such folder, no scene in it, or chips that lack a month or the mask.
        ValueError: a file that lies in two places, fewer than three chips, or none that is complete.
    """

    DATASET_NAME: ClassVar[str] = "hls_irrigation_scenes"
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/hls_irrigation_scenes"
    BUILDER_CONFIG_CLASS = HLSIrrigationScenesConfig
    VERSION = "1.0.0"

    def _info(self) -> DatasetInfo:
        homepage = f"https://huggingface.co/datasets/{self.REPOSITORY}"
        return DatasetInfo(
            description=_DESCRIPTION,
            citation=f"See the data set's page: {homepage}",
            homepage=homepage,
            license=f"See the data set's page: {homepage}",
            features=chip_features(
                HLS_IRRIGATION_SCENES_BANDS,
                HLS_IRRIGATION_SCENES_CLASSES,
                HLS_IRRIGATION_SCENES_CLASS_COLORS,
                frames_are_files=True,
                multi_date=True,
            ),
        )

    def _rows_of_folder(self, data_dir: str) -> Mapping[str, list[dict[str, Any]]]:
        months, masks = _find_files(data_dir, self.config.months)
        chips = self._complete_chips(months, masks, data_dir)
        groups, kind = tiles_of(chips, self.DATASET_NAME), "MGRS tiles"
        if len(set(groups.values())) < len(_SHARES):
            logger.warning(
                f"{self.DATASET_NAME}: {len(set(groups.values()))} MGRS tile(s) cannot be divided among "
                f"{', '.join(_SHARES)}, so chips of one tile are on several sides: the test is not independent."
            )
            groups, kind = {chip: chip for chip in chips}, "chips"
        splits = divide(groups, _SHARES, self.config.split_seed, self.DATASET_NAME, kind)
        return {split: [_row(chip, months, masks) for chip in members] for split, members in splits.items()}

    def _complete_chips(
        self, months: Mapping[int, Mapping[str, str]], masks: Mapping[str, str], data_dir: str
    ) -> list[str]:
        kinds = {**{f"month {month}": files for month, files in months.items()}, "mask": masks}
        chips = sorted(set().union(*kinds.values()))
        lacking = {chip: [kind for kind, files in kinds.items() if chip not in files] for chip in chips}
        complete = [chip for chip, absent in lacking.items() if not absent]
        report = _report({chip: absent for chip, absent in lacking.items() if absent})
        expected = f"{data_dir}: expected {', '.join(kinds)} of each of {len(chips)} chips, found {report}"
        if report and self.config.missing == "error":
            raise FileNotFoundError(f"{expected}. Add the files, or leave these chips out with missing='skip'.")
        if not complete:
            raise ValueError(f"{expected}: no chip is complete. Choose other months, or add the files.")
        if report:
            logger.warning(f"{self.DATASET_NAME}: {len(chips) - len(complete)} chips are left out; {expected}.")
        return complete


def _find_files(data_dir: str, months: list[int]) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
    """Finds the scenes of the wanted months, {month: {chip: path}}, and the masks, {chip: path}."""
    scenes: dict[int, dict[str, str]] = {month: {} for month in months}
    masks: dict[str, str] = {}
    for relative, path in list_files(data_dir).items():
        name = relative.rpartition("/")[2]
        scene, mask = _SCENE.fullmatch(name), _MASK.fullmatch(name)
        files, chip = (scenes.get(int(scene[1])), scene[2]) if scene else (masks, mask[1]) if mask else (None, "")
        if files is None:
            continue
        if chip in files:
            raise ValueError(
                f"{data_dir}: expected one file named {name}, found {files[chip]} and {path}. Point data_dir at the "
                "copy to use."
            )
        files[chip] = path
    if not any(scenes.values()):
        raise FileNotFoundError(
            f"{data_dir}: expected scenes such as month1/scene_m01_T10SFG_chip22.tif, found none of months {months}. "
            "Point data_dir at the folder that holds month1 to month4 and masks, or use geotiff_folder for files of "
            "your own."
        )
    return scenes, masks


def _report(lacking: Mapping[str, list[str]]) -> str:
    """Says for each chip what it lacks; "" if no chip lacks anything."""
    if not lacking:
        return ""
    shown = ", ".join(f"{chip} (no {', no '.join(absent)})" for chip, absent in list(lacking.items())[:_EXAMPLES])
    rest = f" and {len(lacking) - _EXAMPLES} more" if len(lacking) > _EXAMPLES else ""
    return f"{len(lacking)} incomplete: {shown}{rest}"


def _row(chip: str, months: Mapping[int, Mapping[str, str]], masks: Mapping[str, str]) -> dict[str, Any]:
    frames = [files[chip] for files in months.values()]
    return {"image": frames, "mask": masks[chip], "id": chip, "dates": [None] * len(frames)}
