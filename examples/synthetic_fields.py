# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic fields in June, July and August: six HLS bands per month, irrigated or not, real GeoTIFFs, no download.

What tells an irrigated field is its year, not its colour on one day: it is sown late, and green in July and August,
when rain-fed crops dry out. Meadows are as green as it in August, and fallow land is as bare in June. So no single
date separates the classes, and the three together do:

| land        | June  | July   | August |
|-------------|-------|--------|--------|
| irrigated   | bare  | green  | green  |
| rain-fed    | green | fading | dry    |
| evergreen   | green | green  | green  |
| fallow      | bare  | bare   | bare   |

Spectra, random fields and file conventions are those of `synthetic_floods`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from synthetic_floods import BANDS, NODATA, PIXEL_SIZE, REFLECTANCE_SCALE, SPECTRA, random_field

from prithvi_hf.rasters.write_geotiff import write_geotiff


MONTHS = ("june", "july", "august")
CLASSES = ("not irrigated", "irrigated")
IGNORED_LABEL = 255
_PIXELS_OF_A_FIELD = 220
# Land -> how much of the green of a dense crop it has in each month; the rest is soil.
_GREEN = {
    "irrigated": (0.1, 0.75, 0.9),
    "rain-fed": (0.85, 0.45, 0.1),
    "evergreen": (0.8, 0.85, 0.8),
    "fallow": (0.08, 0.08, 0.08),
}
_FREQUENCIES = (0.35, 0.3, 0.2, 0.15)


@dataclass(frozen=True)
class FieldScene:
    """One place in three months.

    Attributes:
        images: (3, 6, height, width) int16, reflectance x 10000, bands in the order of `BANDS`, months in that of
            `MONTHS`; -9999 in every band of a month under a cloud.
        mask: (height, width) uint8, an index of `CLASSES`, 255 between the fields.
    """

    images: np.ndarray
    mask: np.ndarray

    def write(self, stem: str | os.PathLike[str]) -> None:
        """Write `STEM_june.tif`, `STEM_july.tif`, `STEM_august.tif` and `STEM_mask.tif`."""
        place = {"crs": "EPSG:32630", "transform": Affine(PIXEL_SIZE, 0, 600_000, 0, -PIXEL_SIZE, 4_500_000)}
        for month, image in zip(MONTHS, self.images, strict=True):
            write_geotiff(f"{stem}_{month}.tif", image, nodata=NODATA, descriptions=BANDS, **place)
        write_geotiff(f"{stem}_mask.tif", self.mask[None], nodata=IGNORED_LABEL, descriptions=("irrigation",), **place)


def generate_fields(height: int, width: int, seed: int) -> FieldScene:
    """Make one place; the same arguments give the same place.

    Args:
        height: Rows, at least 32.
        width: Columns, at least 32.
        seed: Not negative.

    Returns:
        Images and mask.

    Raises:
        ValueError: A size below 32 or a negative seed.
    """
    if min(height, width) < 32 or seed < 0:
        raise ValueError(f"Expected height and width of 32 or more and seed >= 0, found {height} x {width}, {seed}.")
    rng = np.random.default_rng([seed, height, width])
    # Fields are the pixels that are nearer to their own middle than to any other, but for a track between them.
    count = max(height * width // _PIXELS_OF_A_FIELD, 4)
    middles = rng.uniform(0, 1, (count, 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    nearest, second = np.full((2, height, width), np.inf)
    field = np.zeros((height, width), dtype=int)
    for number, (row, column) in enumerate(middles):
        distance = np.hypot(rows - row, columns - column)
        field[distance < nearest] = number
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    is_track = second - nearest < 1.0

    kinds = rng.choice(len(_GREEN), count, p=_FREQUENCIES)
    green = np.array([*_GREEN.values()])[kinds] * rng.uniform(0.8, 1.15, (count, 1))  # vigour
    green = np.clip(green + rng.normal(0, 0.06, green.shape), 0, 1)  # sown earlier or later
    crop, wet, dry = (np.array(SPECTRA[name]) for name in ("dense_crop", "wet_soil", "dry_soil"))
    soil = wet + (dry - wet) * rng.uniform(0, 1, (count, 1))
    images = np.empty((len(MONTHS), len(BANDS), height, width), dtype=np.int16)
    for month in range(len(MONTHS)):
        fraction = np.where(is_track, 0.15, green[field, month])
        fraction = np.clip(fraction + 0.05 * random_field(rng, height, width, 10), 0, 1)
        surface = soil[field] + (crop - soil[field]) * fraction[..., None]
        light = rng.uniform(0.85, 1.1) * np.exp(0.05 * rng.standard_normal((height, width)))
        values = surface * light[..., None] + rng.normal(0, 0.005, surface.shape)
        images[month] = np.clip(np.rint(values * REFLECTANCE_SCALE), 1, 16000).transpose(2, 0, 1)
        if rng.random() < 0.25:
            images[month][:, random_field(rng, height, width, 25) > 1.5] = NODATA
    mask = (kinds[field] == 0).astype(np.uint8)
    mask[is_track] = IGNORED_LABEL
    return FieldScene(images, mask)


def generate_dataset(
    folder: str | os.PathLike[str], num_train: int, num_validation: int, num_test: int, size: int = 96, seed: int = 0
) -> Path:
    """Write chips that the `geotiff_folder` builder reads as three frames, and one larger place to map.

    Files are `train/chip_0000_june.tif`, `..._july.tif`, `..._august.tif`, `..._mask.tif` and so on, likewise in
    `validation` and `test`, and `scene_june.tif` to `scene_mask.tif`.

    Args:
        folder: Where to write; made if missing. Files of the same names are replaced.
        num_train: Number of training chips.
        num_validation: Number of validation chips.
        num_test: Number of test chips.
        size: Rows and columns of a chip, at least 32.
        seed: Not negative; datasets of different seeds share no place.

    Returns:
        The folder.

    Raises:
        ValueError: A size below 32.
    """
    folder, counts = Path(folder), {"train": num_train, "validation": num_validation, "test": num_test}
    stems = [folder / split / f"chip_{number:04d}" for split, count in counts.items() for number in range(count)]
    scene_seed, *seeds = np.random.SeedSequence(seed).generate_state(len(stems) + 1, np.uint64).tolist()
    for split in counts:
        (folder / split).mkdir(parents=True, exist_ok=True)
    generate_fields(256, 320, scene_seed).write(folder / "scene")
    for stem, chip_seed in zip(stems, seeds, strict=True):
        generate_fields(size, size, chip_seed).write(stem)
    return folder
