# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Landslide4Sense: Sentinel-2 bands, slope and elevation of landslides around the world, which come as HDF5 files."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from affine import Affine
from datasets.utils import logging, tqdm

from prithvi_hf.data.builders.base import HubChipBuilder, make_features
from prithvi_hf.data.builders.files import ChipRow, check_ids, list_files
from prithvi_hf.data.chips import run_in_threads
from prithvi_hf.rasters.write_geotiff import write_geotiff


logger = logging.get_logger(__name__)

LANDSLIDE4SENSE_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD"),
    *("WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "SLOPE", "DEM"),
)
"""Names of the 14 bands of an image, in file order: Sentinel-2 B1 to B12 without B8A, slope and elevation."""
LANDSLIDE4SENSE_CLASSES = ("no landslide", "landslide")
"""Class names by mask value."""
LANDSLIDE4SENSE_CLASS_COLORS = ("#d9d2bf", "#a0522d")
"""Colours of the classes, for maps."""

_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
# The layout of the Hub, images/validation/image_7.h5, or of the competition, ValidData/img/image_7.h5.
_FILE = re.compile(
    r"(?:.*/)?(?:(?:images|annotations)/(train|valid|test)(?:ation)?|(Train|Valid|Test)Data/(?:img|mask))"
    r"/(image|mask)_(\d+)\.h5"
)
_SIDE = 128
_MAX_FILE_BYTES = 16 * 2**20  # an image of float64 has 1.8 MB
_FILTERS = {1, 2, 3}  # deflate, shuffle, checksum: others are code that HDF5 would look for on this machine

_DESCRIPTION = (
    "4,844 patches of 128 x 128 pixels at about 10 m, 3,799 to train, 245 to validate and 800 to test: 12 bands of "
    "Sentinel-2, slope and elevation of ALOS PALSAR (float64, scaled by the publisher, without place or date) with "
    "masks of landslides (0 no landslide, 1 landslide)."
)
_CITATION = """@article{Ghorbanzadeh_2022_Landslide4Sense,
  author = {Ghorbanzadeh, Omid and Xu, Yonghao and Ghamisi, Pedram and Kopp, Michael and Kreil, David},
  title = {Landslide4Sense: Reference Benchmark Data and Deep Learning Models for Landslide Detection},
  journal = {IEEE Transactions on Geoscience and Remote Sensing},
  volume = {60},
  year = {2022},
  doi = {10.1109/TGRS.2022.3215209}
}"""


class Landslide4Sense(HubChipBuilder):
    """Builder of Landslide4Sense with its three splits.

    `data_dir` is the folder that holds `images/{train,validation,test}/image_N.h5` and
    `annotations/{train,validation,test}/mask_N.h5`, or any folder above it; the competition's `TrainData/img` and
    `TrainData/mask` are known too. A split without masks is not offered, and masks without an image are left out: the
    Hub has five. Without `data_dir` the files of the Hub are downloaded one by one.

    HDF5 is read by the package `h5py`, once: images (float32) and masks become GeoTIFF files without georeference in
    `downloads/landslide4sense` of the cache, about 0.9 MB per patch. An interrupted conversion continues with the
    files that are missing.

    Rows: `image` (14 bands, named by `LANDSLIDE4SENSE_BANDS`), `mask`, `id` ("train_7"), `date` (None).

    Raises:
        ImportError: `h5py` is not installed.
        ValueError: a file that is not an HDF5 file of the expected array, or that leads to other files.
    """

    DATASET_NAME: ClassVar[str] = "landslide4sense"
    IMAGE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"image_\d+\.h5")
    REPOSITORY: ClassVar[str] = "ibm-nasa-geospatial/Landslide4sense"
    DESCRIPTION, CITATION, LICENSE = _DESCRIPTION, _CITATION, "mit"
    FEATURES = make_features(LANDSLIDE4SENSE_BANDS, LANDSLIDE4SENSE_CLASSES, LANDSLIDE4SENSE_CLASS_COLORS)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As in `datasets.DatasetBuilder`; a table that is cached is of no use where its files were removed."""
        if self.config.data_dir is not None:
            self._make_folder_rows(self.config.data_dir)
        super().download_and_prepare(*args, **kwargs)

    def _make_folder_rows(self, data_dir: str) -> dict[str, list[ChipRow]]:
        files: dict[str, dict[str, dict[int, str]]] = {}
        for relative, path in list_files(data_dir).items():
            if match := _FILE.fullmatch(relative):
                split, kind, number = _SPLITS[(match[1] or match[2]).lower()], match[3], int(match[4])
                known = files.setdefault(split, {"image": {}, "mask": {}})[kind]
                if number in known:
                    raise ValueError(
                        f"{data_dir}: expected one {kind} {number} of the split {split}, found {known[number]} and "
                        f"{path}. Point data_dir at the copy to use."
                    )
                known[number] = path
        unlabelled = [split for split, kinds in files.items() if not kinds["mask"]]
        if len(unlabelled) == len(files):
            raise FileNotFoundError(
                f"{data_dir}: expected images/train/image_1.h5, annotations/train/mask_1.h5 and the like, found none. "
                "Point data_dir at the folder that holds both, or use geotiff_folder for files of your own."
            )
        if unlabelled:
            logger.warning(f"{data_dir}: no masks of {', '.join(unlabelled)}, so this split is not offered.")
        # `hash` is of the names, sizes and times of the files of data_dir; a downloaded folder is named by its commit.
        digest = f"{self.hash}-{os.path.basename(data_dir)}" if self.config.data_dir is None else self.hash
        folder = Path(self._cache_downloaded_dir) / self.DATASET_NAME / str(digest)
        rows: dict[str, list[ChipRow]] = {}
        missing: list[tuple[str, str, Path]] = []
        for split in [split for split in _SPLITS.values() if split in files and split not in unlabelled]:
            found = {
                kind: {f"{split}_{number}": path for number, path in paths.items()}
                for kind, paths in files[split].items()
            }
            chips = [f"{split}_{number}" for number in sorted(files[split]["image"])]
            check_ids(chips, found, f"{self.DATASET_NAME}, {data_dir}, split {split}")
            rows[split] = []
            for chip in chips:
                targets = {kind: folder / f"{chip}_{kind}.tif" for kind in found}
                image, mask = str(targets["image"]), str(targets["mask"])
                rows[split].append({"image": image, "mask": mask, "id": chip, "date": None})
                missing += [(kind, found[kind][chip], path) for kind, path in targets.items() if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        results = run_in_threads(partial(convert_patch, *file) for file in missing)
        for _ in tqdm(results, "Converting HDF5 to GeoTIFF", len(missing), unit="file", disable=not missing or None):
            pass
        return rows


def convert_patch(kind: str, source: str | os.PathLike, target: Path) -> None:
    """Convert an "image" or a "mask" from HDF5 to a GeoTIFF, which appears when it is complete."""
    layout: dict[str, Any] = {"interleave": "band", "zlevel": 1}
    if kind == "mask":
        values = read_hdf5(source, "mask", (_SIDE, _SIDE), ("uint8", "bool")).astype(np.uint8)
    else:
        shape = (_SIDE, _SIDE, len(LANDSLIDE4SENSE_BANDS))
        values = read_hdf5(source, "img", shape, ("float64", "float32", "float16"))
        values, layout["descriptions"] = values.transpose(2, 0, 1).astype(np.float32), LANDSLIDE4SENSE_BANDS
    write_geotiff(target, values, crs=None, transform=Affine.identity(), **layout)


def read_hdf5(path: str | os.PathLike, name: str, shape: tuple[int, ...], dtypes: Sequence[str]) -> np.ndarray:
    """Read the one array of an HDF5 file that nobody vouches for.

    It must be in the file itself, under that name, of that shape and one of these dtypes, neither link to other files
    nor need filters beyond HDF5's own.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "Expected the package h5py to read HDF5 files, found none. Install it: pip install 'prithvi_hf[hdf5]'"
        ) from error
    try:
        if os.path.getsize(path) > _MAX_FILE_BYTES:
            raise ValueError(f"{os.path.getsize(path):,} bytes")
        with h5py.File(path, "r") as file:
            link = file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError("none" if link is None else f"a link to {link.path}")
            array = file[name]
            if not isinstance(array, h5py.Dataset):
                raise ValueError(f"a {type(array).__name__}")
            if array.is_virtual or array.external:
                raise ValueError("one whose values are in other files")
            if array.shape != shape or array.dtype.name not in dtypes:
                raise ValueError(f"{array.dtype} of shape {array.shape}")
            creation, stored = array.id.get_create_plist(), array.id.get_storage_size()
            filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
            if len({*filters}) < len(filters) or not {*filters} <= _FILTERS:
                raise ValueError(f"the filters {filters}")
            if not 0 < stored <= array.nbytes + 2**16 or any(map(int.__gt__, array.chunks or (), shape)):
                raise ValueError(f"{stored:,} bytes in chunks of {array.chunks}")
            return array[()]
    except (OSError, RuntimeError, TypeError, KeyError, ValueError) as error:
        expected = f"an HDF5 file with {name}, {' or '.join(dtypes)} of shape {shape}"
        raise ValueError(f"{path}: expected {expected}, found: {error}. Download it again.") from error
