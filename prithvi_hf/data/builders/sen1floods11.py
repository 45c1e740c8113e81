# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sen1Floods11, hand-labelled: Sentinel-2 chips of eleven flood events with water masks."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from datasets import BuilderConfig, DatasetInfo, DownloadConfig
from datasets.utils import logging
from datasets.utils.file_utils import xopen

from prithvi_hf.data.builders.base import ChipBuilder, chip_features
from prithvi_hf.data.builders.download import explained_bucket_errors, verify_bucket_digests
from prithvi_hf.data.builders.files import (
    by_chip,
    check_ids,
    decode_text,
    list_files,
    parse_id_list,
)


logger = logging.get_logger(__name__)

SEN1FLOODS11_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    *("NIR_BROAD", "NIR_NARROW", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2"),
)
"""Names of the 13 bands of an image, in file order (B1 to B8, B8A, B9 to B12)."""
SEN1FLOODS11_CLASSES = ("no water", "water")
"""Class names by mask value; mask value -1 is no data."""
SEN1FLOODS11_CLASS_COLORS = ("#d9d2bf", "#1f6fb4")
"""Colours of the classes, for maps."""
SEN1FLOODS11_IGNORED_VALUE = -1
"""Mask value of pixels that carry no label (clouds, swath edge)."""

_IMAGE_SUFFIX, _MASK_SUFFIX = "_S2Hand.tif", "_LabelHand.tif"
_LIST_SUFFIXES = ("_S1Hand.tif", _IMAGE_SUFFIX, _MASK_SUFFIX, ".tif", "_S1Hand", "_S2Hand", "_LabelHand")
_LISTS = {"train": "train", "validation": "valid", "test": "test", "bolivia": "bolivia"}
_LIST_NAME = re.compile(r"flood_(train|valid|test|bolivia)_data\.(csv|txt)")
_METADATA = "Sen1Floods11_Metadata.geojson"
_REMOTE = {
    "image": "v1.1/data/flood_events/HandLabeled/S2Hand/{}" + _IMAGE_SUFFIX,
    "mask": "v1.1/data/flood_events/HandLabeled/LabelHand/{}" + _MASK_SUFFIX,
}
# Chips of one event carry another name than the event.
_EVENT_NAMES = {"mekong": "cambodia"}

_DESCRIPTION = (
    "446 chips of 512 x 512 pixels at 10 m from eleven flood events, Bolivia held out as a split of its own: "
    "Sentinel-2 Level-1C images of 13 bands (top-of-atmosphere reflectance x 10000, int16) with hand-drawn masks of "
    "surface water (-1 no data, 0 no water, 1 water)."
)
_CITATION = """@InProceedings{Bonafilia_2020_CVPR_Workshops,
  author = {Bonafilia, Derrick and Tellman, Beth and Anderson, Tyler and Issenberg, Erica},
  title = {Sen1Floods11: a georeferenced dataset to train and test deep learning flood algorithms for Sentinel-1},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR) Workshops},
  year = {2020},
  pages = {210--211}
}"""
_LICENSE = (
    "The publishers state no licence with the data; the imagery is modified Copernicus Sentinel data, free and open "
    "under the Copernicus terms. See the homepage."
)


@dataclass
class Sen1Floods11Config(BuilderConfig):
    """Options of [`Sen1Floods11`].

    Args:
        base_url (`str`, *optional*): where to download from without `data_dir`: the folder that holds `v1.1`.
    """

    base_url: str = "https://storage.googleapis.com/sen1floods11"


class Sen1Floods11(ChipBuilder):
    """Builder of the hand-labelled part of Sen1Floods11 with its official splits.

    `data_dir` is the folder that holds `v1.1`, or `v1.1`, or any copy in which the files keep their names: images
    `*_S2Hand.tif`, masks `*_LabelHand.tif`, lists `flood_{train,valid,test,bolivia}_data.csv` or `.txt`. Splits whose
    list is absent are not offered. Without `data_dir` the chips (about 3 GB) are downloaded file by file: an
    interrupted download goes on with the files that are missing, and each is compared with the MD5 digest that the
    bucket states. A stream reads chips from the bucket as they are asked for, and compares nothing.

    Rows: `image` (13 bands, named by `SEN1FLOODS11_BANDS`), `mask`, `id` ("Ghana_103272"), `date` (ISO day of the
    Sentinel-2 image from the event metadata, None where they give none).

    Raises:
        FileNotFoundError: no such folder, no split list, or chips of a list without image or mask.
        ValueError: an empty list, a chip listed twice, a file that lies in two places, or unreadable metadata.
        DownloadError: a bucket that cannot be reached, or downloaded files that differ from their digest.
    """

    DATASET_NAME: ClassVar[str] = "sen1floods11"
    BUILDER_CONFIG_CLASS = Sen1Floods11Config
    VERSION = "1.1.0"

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            homepage="https://github.com/cloudtostreet/Sen1Floods11",
            license=_LICENSE,
            features=chip_features(SEN1FLOODS11_BANDS, SEN1FLOODS11_CLASSES, SEN1FLOODS11_CLASS_COLORS),
        )

    def _rows_by_split(self, dl_manager: Any) -> Mapping[str, list[dict[str, Any]]]:
        return (
            self._remote_rows(dl_manager) if self.config.data_dir is None else self._local_rows(self.config.data_dir)
        )

    def _local_rows(self, data_dir: str) -> dict[str, list[dict[str, Any]]]:
        paths = _by_name(list_files(data_dir), data_dir)
        lists = {split: _find_list(paths, name) for split, name in _LISTS.items()}
        lists = {split: path for split, path in lists.items() if path is not None}
        if not lists:
            raise FileNotFoundError(
                f"{data_dir}: expected the official layout of Sen1Floods11 with lists such as flood_train_data.csv, "
                "found none. Point data_dir at the folder that holds v1.1, or use geotiff_folder."
            )
        images, masks = (by_chip(paths, suffix) for suffix in (_IMAGE_SUFFIX, _MASK_SUFFIX))
        dates = _read_dates(paths.get(_METADATA))
        rows = {}
        for split, path in lists.items():
            ids = parse_id_list(_read_text(path), _LIST_SUFFIXES)
            check_ids(ids, {"image": images, "mask": masks}, f"split {split} ({path})")
            rows[split] = [_row(chip, images[chip], masks[chip], dates) for chip in ids]
        return rows

    def _remote_rows(self, dl_manager: Any) -> dict[str, list[dict[str, Any]]]:
        base = self.config.base_url.rstrip("/")
        with explained_bucket_errors("the files of Sen1Floods11 (v1.1)", base):
            return self._fetched_rows(dl_manager, base)

    def _fetched_rows(self, dl_manager: Any, base: str) -> dict[str, list[dict[str, Any]]]:
        lists = {
            split: f"{base}/v1.1/splits/flood_handlabeled/flood_{name}_data.csv" for split, name in _LISTS.items()
        }
        texts = dl_manager.download({**lists, _METADATA: f"{base}/v1.1/{_METADATA}"})
        dates = _read_dates(texts.pop(_METADATA))
        ids = {split: parse_id_list(_read_text(path), _LIST_SUFFIXES) for split, path in texts.items()}
        chips = [chip for split in ids.values() for chip in split]
        kinds = {kind: {chip: f"{base}/{place.format(chip)}" for chip in chips} for kind, place in _REMOTE.items()}
        files = dl_manager.download(kinds)
        if not dl_manager.is_streaming:
            verify_bucket_digests({kinds[kind][chip]: files[kind][chip] for kind in kinds for chip in chips})
        return {
            split: [_row(chip, files["image"][chip], files["mask"][chip], dates) for chip in names]
            for split, names in ids.items()
        }


def _by_name(paths: Mapping[str, str], data_dir: str) -> dict[str, str]:
    """Indexes the files of the data set by file name, wherever they lie."""
    named: dict[str, str] = {}
    for relative, path in paths.items():
        name = relative.rsplit("/", 1)[-1]
        wanted = name.endswith((_IMAGE_SUFFIX, _MASK_SUFFIX)) or name == _METADATA or _LIST_NAME.fullmatch(name)
        if wanted and name in named:
            raise ValueError(
                f"{data_dir}: expected one file named {name}, found {named[name]} and {path}. Point data_dir at "
                "one of them."
            )
        if wanted:
            named[name] = path
    return named


def _find_list(paths: Mapping[str, str], name: str) -> str | None:
    candidates = (paths.get(f"flood_{name}_data{ending}") for ending in (".csv", ".txt"))
    return next((path for path in candidates if path is not None), None)


def _row(chip: str, image: str, mask: str, dates: Mapping[str, str]) -> dict[str, Any]:
    event = _event_key(chip.rpartition("_")[0])
    return {"image": image, "mask": mask, "id": chip, "date": dates.get(_EVENT_NAMES.get(event, event))}


def _event_key(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _read_text(path: str) -> str:
    """Reads a small local or, in a stream, remote file."""
    with xopen(path, "rb", download_config=DownloadConfig()) as file:
        return decode_text(file.read(), path)


def _read_dates(path: str | None) -> dict[str, str]:
    """Reads the day of the Sentinel-2 image of each event, as ISO text."""
    if path is None:
        logger.warning(f"Sen1Floods11: no {_METADATA} found beside the chips, so their dates are None.")
        return {}
    try:
        events = [feature["properties"] for feature in json.loads(_read_text(path))["features"]]
        return {_event_key(event["location"]): _iso_day(event["s2_date"]) for event in events if event.get("s2_date")}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected features with properties location and s2_date (YYYY/MM/DD), found {error!r}. "
            f"Download {_METADATA} again, or remove it to go without dates."
        ) from error


def _iso_day(text: str) -> str:
    return datetime.strptime(text.replace("-", "/"), "%Y/%m/%d").date().isoformat()
