# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic flood scenes: six HLS bands, two classes, real GeoTIFF files, no download.

The quickstart trains on them, so they have to be quick to make, plausible to look at, and not solvable by a band
ratio. A scene is a terrain with a river and its flood plain, land cover, flood water, and an atmosphere above:

    surface   = land cover x terrain light x texture, mixed with water where the land is below the flood
    at sensor = cloud over (haze over (surface x cloud shadow)), blurred by the optics, plus noise

What spoils a threshold on an index is what spoils it in practice: sun glint and flooded crops lift the short-wave
infrared of water; shadow (lit by the blue sky alone), haze, snow, asphalt and burnt ground make land look like water.

Reflectances are 0..1 in this module's arithmetic and int16 x 10000 in what it returns; lengths are pixels of 30 m.

The spectra are rounded values in the range that these sources report, no copy of a table. Vegetation, soils, rock,
built surfaces, snow: USGS Spectral Library Version 7 (Kokaly et al. 2017, USGS Data Series 1035) and ECOSTRESS
spectral library (Meerdink et al. 2019, Remote Sensing of Environment 230). Water, clear and with sediment: Bowker et
al. 1985 (NASA RP-1139) and Doxaran et al. 2002 (Remote Sensing of Environment 81); sediment lifts the red and the near
infrared, while water absorbs nearly all short-wave infrared. Indices: McFeeters 1996 (NDWI), Xu 2006 (MNDWI), Feyisa
et al. 2014 (AWEI).
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from affine import Affine
from tqdm.auto import tqdm

from prithvi_hf.rasters.write_geotiff import write_geotiff


BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
NODATA = -9999
IGNORED_LABEL = -1
IMAGE_SUFFIX = "_image.tif"
MASK_SUFFIX = "_mask.tif"
PIXEL_SIZE = 30.0  # metres
REFLECTANCE_SCALE = 10000  # file value of reflectance 1

# Surface reflectance per band, in the order of BANDS (0.49, 0.56, 0.66, 0.86, 1.61 and 2.2 micrometres).
SPECTRA = {
    "dense_crop": (0.030, 0.065, 0.035, 0.420, 0.190, 0.085),
    "sparse_crop": (0.055, 0.090, 0.090, 0.290, 0.250, 0.160),
    "dry_soil": (0.110, 0.160, 0.215, 0.290, 0.370, 0.320),
    "wet_soil": (0.050, 0.075, 0.100, 0.145, 0.150, 0.095),
    "stubble": (0.085, 0.125, 0.170, 0.260, 0.330, 0.240),
    "forest": (0.018, 0.038, 0.022, 0.290, 0.130, 0.052),
    "rock": (0.120, 0.150, 0.180, 0.220, 0.270, 0.240),
    "asphalt": (0.075, 0.085, 0.092, 0.105, 0.120, 0.115),
    "roof": (0.230, 0.250, 0.265, 0.285, 0.255, 0.215),
    "burnt": (0.032, 0.038, 0.045, 0.075, 0.120, 0.110),
    "snow": (0.780, 0.790, 0.770, 0.660, 0.090, 0.070),
    "clear_water": (0.045, 0.042, 0.025, 0.012, 0.005, 0.003),
    "turbid_water": (0.085, 0.130, 0.165, 0.110, 0.018, 0.010),
    "drowned_crop": (0.035, 0.070, 0.050, 0.330, 0.150, 0.065),
    "cloud": (0.680, 0.680, 0.690, 0.700, 0.520, 0.400),
}
# Fraction of full daylight that blue sky light alone gives a shaded surface.
SKY_LIGHT = (0.42, 0.34, 0.27, 0.17, 0.10, 0.07)
# Path reflectance that a dense haze adds: scattering by small particles falls with the wavelength.
HAZE = (0.130, 0.105, 0.085, 0.055, 0.022, 0.012)


@dataclass(frozen=True)
class FloodScene:
    """One synthetic scene.

    Attributes:
        image (`np.ndarray` of shape `(6, height, width)`): int16, reflectance x 10000, bands in the order of `BANDS`;
            -9999 in every band outside the swath.
        mask (`np.ndarray` of shape `(height, width)`): int16, 0 land, 1 flood water, -1 no label (thick cloud, outside
            the swath).
        crs (`str`): "EPSG:326" and the UTM zone.
        transform (`Affine`): from (column, row) to UTM metres, north up, 30 m.
    """

    image: np.ndarray
    mask: np.ndarray
    crs: str
    transform: Affine

    def write(self, image_path: str | os.PathLike, mask_path: str | os.PathLike) -> None:
        """Writes image and mask as GeoTIFF files with band names, nodata tag and georeference.

        Args:
            image_path (`str` or `os.PathLike`): file of the image.
            mask_path (`str` or `os.PathLike`): file of the mask.
        """
        place = {"crs": self.crs, "transform": self.transform}
        write_geotiff(image_path, self.image, nodata=NODATA, descriptions=BANDS, **place)
        write_geotiff(mask_path, self.mask, nodata=IGNORED_LABEL, descriptions=("flood",), **place)


def generate_scene(height: int, width: int, seed: int) -> FloodScene:
    """Makes one scene; the same arguments give the same scene.

    Args:
        height (`int`): rows, at least 32.
        width (`int`): columns, at least 32.
        seed (`int`): not negative. Each seed has its own terrain, water, season, sky and place.

    Returns:
        `FloodScene`: image, mask and georeference.

    Raises:
        ValueError: a size below 32 or a negative seed.
    """
    if min(height, width) < 32 or seed < 0:
        raise ValueError(f"Expected height and width of 32 or more and seed >= 0, found {height} x {width}, {seed}.")
    rng = np.random.default_rng([seed, height, width])
    elevation = _terrain(rng, height, width)
    water = _flood(rng, elevation)
    parcels = _parcels(rng, height, width)
    land = _land(rng, elevation, parcels)
    surface = _mix(land, _water(rng, parcels, water.shape), water)
    reflectance, cloud = _atmosphere(rng, surface)
    reflectance = _blur(reflectance) + rng.normal(0, 0.003, surface.shape).astype(np.float32)
    image = np.clip(np.rint(reflectance * REFLECTANCE_SCALE), 1, 16000).astype(np.int16)
    mask = np.where(cloud > 0.5, IGNORED_LABEL, water > 0.5).astype(np.int16)
    _cut_swath(rng, image, mask)
    return FloodScene(image, mask, *_place(rng))


def random_field(
    rng: np.random.Generator, height: int, width: int, length: float, roughness: float = 0.0
) -> np.ndarray:
    """Draws a smooth Gaussian random field, of zero mean and unit variance over a much larger area.

    Args:
        rng (`np.random.Generator`): source of randomness.
        height (`int`): rows.
        width (`int`): columns.
        length (`float`): size of its features in pixels.
        roughness (`float`, *optional*, defaults to 0.0): 0 for features of that size alone, up to 1 for ever finer
            detail on them.

    Returns:
        `np.ndarray` of shape `(height, width)`: float32.
    """
    # The FFT makes the field periodic: what is cut off at the far sides keeps opposite borders apart.
    size = tuple(-(-(side + 2 * int(length)) // 64) * 64 for side in (height, width))
    gain = _gain(size, length, roughness)
    waves = rng.standard_normal((*gain.shape, 2), dtype=np.float32).view(np.complex64)[..., 0] * gain
    field = np.fft.irfft2(waves, s=size)
    return (field / field.std())[:height, :width]


@lru_cache(maxsize=64)
def _gain(size: tuple[int, int], length: float, roughness: float) -> np.ndarray:
    """Amplitude of each wave of a random field, zero for the constant one."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]) * length
    gain = np.exp(-8 * frequency**2) + roughness * 0.1 / (0.3 + frequency) ** 2
    gain[0, 0] = 0
    return gain.astype(np.float32)


def _ramp(values: np.ndarray, threshold: float, width: float) -> np.ndarray:
    """0 well below the threshold, 1 well above it, a smooth step of that width between."""
    return 1 / (1 + np.exp(np.clip((threshold - values) * (4 / width), -30, 30)))


def _mix(under: np.ndarray, over: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Linear mixture of two reflectances (6, H, W) or (6, 1, 1) by the fraction of the second (H, W)."""
    return under + (over - under) * weight


def _spectrum(name: str) -> np.ndarray:
    return np.array(SPECTRA[name], np.float32)[:, None, None]


def _sky_light() -> np.ndarray:
    return np.array(SKY_LIGHT, np.float32)[:, None, None]


def _grid(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in pixels along and across a random direction, zero in the middle of the scene."""
    angle = rng.uniform(0, np.pi)
    row, column = np.mgrid[:height, :width].astype(np.float32)
    row, column = row - height / 2, column - width / 2
    return column * np.cos(angle) + row * np.sin(angle), row * np.cos(angle) - column * np.sin(angle)


def _terrain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Elevation (H, W) in units of its own relief: hills with one meandering river valley cut into them."""
    along, across = _grid(rng, height, width)
    bend, phase = rng.uniform(110, 220), rng.uniform(0, 2 * np.pi, 2)
    meander = 0.16 * bend * np.sin(2 * np.pi * along / bend + phase[0])
    meander += 0.05 * bend * np.sin(5.1 * np.pi * along / bend + phase[1])
    distance = across - meander - rng.uniform(-0.25, 0.25) * min(height, width)
    valley = 1 - np.exp(-((distance / rng.uniform(18, 34)) ** 2))
    hills = random_field(rng, height, width, 70) + 0.04 * random_field(rng, height, width, 12)
    return 1.6 * valley + hills


def _flood(rng: np.random.Generator, elevation: np.ndarray) -> np.ndarray:
    """Share of water in each pixel (H, W), 0..1: everything below the level that drowns 22 to 48 % of the scene."""
    level = np.quantile(elevation, rng.uniform(0.22, 0.48))
    slope = np.mean(np.abs(np.diff(elevation, axis=1)))
    return _ramp(-elevation, -level, 2 * slope)


def _parcels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Numbers of the fields (H, W) of a slightly bent patchwork, in random order, 0..255."""
    along, across = _grid(rng, height, width)
    size = rng.uniform(16, 30)
    column = np.floor((along + 5 * random_field(rng, height, width, 60)) / (size * rng.uniform(1.2, 2))).astype(int)
    # Each strip of fields starts at another place, as no cadastre is a chessboard.
    shift = rng.uniform(0, size, 64)[column % 64]
    row = np.floor((across + shift + 5 * random_field(rng, height, width, 60)) / size).astype(int)
    return rng.integers(0, 256, (64, 64))[column % 64, row % 64]


def _farmland(rng: np.random.Generator, parcels: np.ndarray) -> np.ndarray:
    """Reflectance (6, H, W) of the fields: each one crop or soil with some of another, by the season of the scene."""
    kinds = np.array([SPECTRA[name] for name in ("dense_crop", "sparse_crop", "dry_soil", "wet_soil", "stubble")])
    season = rng.dirichlet(np.full(len(kinds), 1.5))
    first, second = rng.choice(len(kinds), (2, 256), p=season)
    share = rng.uniform(0, 0.35, (256, 1))
    table = ((1 - share) * kinds[first] + share * kinds[second]) * rng.lognormal(0, 0.08, (256, 1))
    return np.moveaxis(table[parcels], -1, 0).astype(np.float32)


def _land(rng: np.random.Generator, elevation: np.ndarray, parcels: np.ndarray) -> np.ndarray:
    """Reflectance (6, H, W) of the dry scene in sunlight: fields, forest, rock, town, burnt ground, snow."""
    shape = elevation.shape
    height = elevation - np.median(elevation)
    land = _mix(_farmland(rng, parcels), _spectrum("wet_soil"), 0.6 * _ramp(-height, 0.5, 0.6))
    wooded = height + 0.8 * random_field(rng, *shape, 40, 0.5)
    land = _mix(land, _spectrum("forest"), _ramp(wooded, rng.uniform(0.2, 1.6), 0.25))
    land = _mix(land, _spectrum("rock"), 0.9 * _ramp(height + 0.3 * random_field(rng, *shape, 25), 1.5, 0.3))
    land = _mix(land, _town(rng, shape), _ramp(random_field(rng, *shape, 50), rng.uniform(0.6, 2.2), 0.15))
    land = _mix(land, _spectrum("burnt"), _ramp(random_field(rng, *shape, 45, 0.3), rng.uniform(0.6, 2.4), 0.15))
    texture = np.exp(0.07 * rng.standard_normal(shape) + 0.06 * random_field(rng, *shape, 8))
    land = land * texture * _sunlight(elevation)
    if rng.random() < 0.4:
        snow_line = height + 0.25 * random_field(rng, *shape, 20, 0.5)
        land = _mix(land, _spectrum("snow") * rng.uniform(0.6, 1), _ramp(snow_line, rng.uniform(0.6, 1.4), 0.15))
    return land.astype(np.float32)


def _town(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Reflectance (6, H, W) of a town: streets with roofs and gardens of a few pixels between."""
    roofs = _ramp(random_field(rng, *shape, 4), rng.uniform(0.3, 1.0), 0.5)
    gardens = 0.5 * _ramp(random_field(rng, *shape, 6), 0.8, 0.5)
    return _mix(_mix(_spectrum("asphalt"), _spectrum("roof"), roofs), _spectrum("sparse_crop"), gardens)


def _sunlight(elevation: np.ndarray) -> np.ndarray:
    """Factor (6, H, W): slopes towards the morning sun in the south-east gain, those behind keep mostly sky light."""
    down, right = np.gradient(elevation)
    away = 6 * (down + right)
    return _mix(np.ones((6, 1, 1), np.float32), _sky_light(), np.clip(away, 0, 0.9)) * np.clip(1 - 0.5 * away, 1, 1.4)


def _water(rng: np.random.Generator, parcels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reflectance (6, H, W) of the flood: clear to turbid, with drowned crops standing out of it, and sun glint."""
    turbidity = _ramp(random_field(rng, *shape, 50, 0.2), rng.uniform(-1.2, 1.2), 1.5)
    water = _mix(_spectrum("clear_water"), _spectrum("turbid_water") * rng.uniform(0.8, 1.25), turbidity)
    # Fields drown whole: their crops show where the water is shallow, by the same patchwork as on dry land.
    standing = (random_field(rng, *shape, 45) + 0.5 * rng.standard_normal(256)[parcels]) > rng.uniform(-0.3, 1.0)
    water = _mix(water, _spectrum("drowned_crop"), standing * rng.uniform(0.3, 0.65, 256)[parcels])
    glint = rng.uniform(0, 0.11) * _ramp(random_field(rng, *shape, 60), rng.uniform(-1, 1), 1.5)
    return (water + glint).astype(np.float32)


def _atmosphere(rng: np.random.Generator, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance (6, H, W) as seen through shadow, haze and cloud, and the opacity of the cloud (H, W), 0..1."""
    shape = surface.shape[1:]
    # Clouds are drawn on a larger canvas, so that shadows come from clouds outside the scene as well. The sun stands
    # in the south-east, as at every morning overpass of the northern hemisphere: shadows fall to the north-west.
    reach = 24
    sky = random_field(rng, shape[0] + reach, shape[1] + reach, 38, 0.35)
    opacity = _ramp(sky, rng.uniform(0.9, 2.3), 0.35)
    dx, dy = rng.integers(10, reach + 1, 2)
    cloud = opacity[: shape[0], : shape[1]]
    shadow = 0.95 * opacity[dy : dy + shape[0], dx : dx + shape[1]]
    light = _mix(np.ones((6, 1, 1), np.float32), _sky_light(), shadow)
    haze = rng.uniform(0, 1) * _ramp(random_field(rng, *shape, 60), rng.uniform(-0.8, 1), 1.5)
    hazy = surface * light * (1 - 0.3 * haze) + np.array(HAZE, np.float32)[:, None, None] * haze
    return _mix(hazy, _spectrum("cloud"), cloud), cloud


def _blur(image: np.ndarray) -> np.ndarray:
    """Point spread of the optics: 1-2-1 along rows and columns, which mixes the pixels of every border."""
    for axis in (1, 2):
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[axis] = (1, 1)
        padded = np.pad(image, padding, mode="edge")
        size = image.shape[axis]
        before, here, after = (padded.take(range(start, start + size), axis) for start in range(3))
        image = 0.25 * before + 0.5 * here + 0.25 * after
    return image


def _cut_swath(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> None:
    """In one scene of four, blanks a diagonal wedge beyond the edge of the satellite's swath, in place."""
    height, width = mask.shape
    if rng.random() >= 0.25:
        return
    row, column = np.mgrid[:height, :width]
    edge = width * rng.uniform(0.02, 0.3) + (height / 2 - row) * np.tan(np.deg2rad(rng.uniform(8, 16)))
    outside = column < edge if rng.random() < 0.5 else width - 1 - column < edge
    image[:, outside] = NODATA
    mask[outside] = IGNORED_LABEL


def _place(rng: np.random.Generator) -> tuple[str, Affine]:
    """An invented place: a UTM zone of the northern hemisphere and a corner in it on the 30 m grid."""
    zone = int(rng.integers(1, 61))
    east, north = 30.0 * rng.integers(10_000, 23_000), 30.0 * rng.integers(30_000, 190_000)
    return f"EPSG:326{zone:02d}", Affine(PIXEL_SIZE, 0, float(east), 0, -PIXEL_SIZE, float(north))


@dataclass(frozen=True)
class IndexThreshold:
    """An index, and the threshold on it that separates water from land best on the pixels it was chosen on.

    Attributes:
        index (`str`): its name, such as "MNDWI", "SWIR_1" or "(GREEN - RED) / (GREEN + RED)".
        mean_iou (`float`): mean of the two classes' intersection over union, 0..1.
        land_iou (`float`): that of land.
        water_iou (`float`): that of water.
        threshold (`float`): the border; a pixel of just this value is water.
        water_above (`bool`): whether water is above the threshold rather than below it.
    """

    index: str
    mean_iou: float
    land_iou: float
    water_iou: float
    threshold: float
    water_above: bool


def water_indices(reflectance: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Computes every single band, every normalised difference of two bands, and both water extraction indices.

    A threshold on a normalised difference is a threshold on the ratio of its bands, so no band ratio is left out.

    Args:
        reflectance (`np.ndarray` of shape `(6, ...)`): float, 0..1, bands in the order of `BANDS`.

    Yields:
        `tuple[str, np.ndarray]`: name of an index and its values `(...)`.
    """
    blue, green, _, nir, swir_1, swir_2 = reflectance
    yield from zip(BANDS, reflectance, strict=True)
    known = {("GREEN", "SWIR_1"): "MNDWI", ("GREEN", "NIR_NARROW"): "NDWI"}
    for first, second in itertools.combinations(range(len(BANDS)), 2):
        pair, a, b = (BANDS[first], BANDS[second]), reflectance[first], reflectance[second]
        yield known.get(pair, f"({pair[0]} - {pair[1]}) / ({pair[0]} + {pair[1]})"), (a - b) / np.maximum(a + b, 1e-6)
    yield "AWEI_nsh", 4 * (green - swir_1) - (0.25 * nir + 2.75 * swir_2)
    yield "AWEI_sh", blue + 2.5 * green - 1.5 * (nir + swir_1) - 0.25 * swir_2


def best_index_threshold_iou(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> dict[str, IndexThreshold]:
    """Measures how far thresholds on water indices get at best: each threshold is chosen on the chips it is scored on.

    Args:
        images (`Sequence[np.ndarray]`): `(6, height, width)` each, reflectance x 10000, bands in the order of `BANDS`.
        masks (`Sequence[np.ndarray]`): `(height, width)` each, 0 land, 1 water; pixels of other values are left out.
            The pixels of all chips are pooled.

    Returns:
        `dict[str, IndexThreshold]`: for each index its best threshold, the best index first.

    Raises:
        ValueError: no labelled pixel of one of the classes.
    """
    labelled = [np.isin(mask, (0, 1)) for mask in masks]
    truth = np.concatenate([mask[chosen] for mask, chosen in zip(masks, labelled, strict=True)]) == 1
    if truth.all() or not truth.any():
        raise ValueError(
            f"Expected labelled pixels of land and of water, found {truth.sum()} of water in {truth.size}."
        )
    pixels = np.concatenate([image[:, chosen] for image, chosen in zip(images, labelled, strict=True)], axis=1)
    reflectance = pixels.astype(np.float32) / REFLECTANCE_SCALE
    found = [_best_threshold(name, values, truth) for name, values in water_indices(reflectance)]
    return {best.index: best for best in sorted(found, key=lambda best: -best.mean_iou)}


def _best_threshold(name: str, values: np.ndarray, truth: np.ndarray) -> IndexThreshold:
    """Scores every threshold between the sorted values, with water above it and with water below it."""
    order = np.argsort(values)
    ascending = values[order]
    water_from = _scores(truth[order][::-1])[:, ::-1]
    water_to = _scores(truth[order])
    # A threshold cannot part equal values: keep the first of each run for "from here up", the last for "up to here".
    step = ascending[1:] != ascending[:-1]
    water_from[:, 1:][:, ~step] = -1
    water_to[:, :-1][:, ~step] = -1
    above = water_from.mean(0).max() >= water_to.mean(0).max()
    scores = water_from if above else water_to
    place = int(scores.mean(0).argmax())
    land, water = (float(score) for score in scores[:, place])
    return IndexThreshold(name, (land + water) / 2, land, water, float(ascending[place]), bool(above))


def _scores(truth: np.ndarray) -> np.ndarray:
    """IoU of land and of water (2, N), if the first 1, 2, ... N pixels are called water."""
    hits, called = np.cumsum(truth), np.arange(1, truth.size + 1)
    wrongly_water, missed = called - hits, hits[-1] - hits
    land = truth.size - called - missed
    return np.stack([land / (land + wrongly_water + missed), hits / (hits + wrongly_water + missed)])


def generate_dataset(
    folder: str | os.PathLike,
    num_train: int,
    num_validation: int,
    num_test: int,
    chip_size: int = 128,
    seed: int = 0,
    show_progress: bool = True,
    scene_size: tuple[int, int] = (512, 640),
) -> Path:
    """Writes a dataset of chips that the `geotiff_folder` builder reads, and one larger scene to map.

    The files are `train/chip_0000_image.tif`, `train/chip_0000_mask.tif` and so on, likewise in `validation` and
    `test`, and `scene.tif` with `scene_mask.tif`. Every chip is a place of its own.

    Args:
        folder (`str` or `os.PathLike`): where to write; made if missing. Files of the same names are replaced.
        num_train (`int`): number of training chips.
        num_validation (`int`): number of validation chips.
        num_test (`int`): number of test chips.
        chip_size (`int`, *optional*, defaults to 128): rows and columns of a chip, at least 32.
        seed (`int`, *optional*, defaults to 0): not negative; datasets of different seeds share no scene.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.
        scene_size (`tuple[int, int]`, *optional*, defaults to `(512, 640)`): rows and columns of the larger scene.

    Returns:
        `Path`: the folder.

    Raises:
        FileExistsError: a split folder holds GeoTIFF files of another dataset.
        ValueError: a size below 32.

    Example:
    ```python
    >>> generate_dataset("floods", num_train=200, num_validation=20, num_test=40)
    >>> load_dataset("geotiff_folder", "floods", image_suffix="_image.tif", mask_suffix="_mask.tif")
    ```
    """
    folder = Path(folder)
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    chips = [folder / split / f"chip_{number:04d}" for split, count in counts.items() for number in range(count)]
    _prepare_folders([folder / split for split in counts], chips)
    # The scene's seed comes first, so that it is the same whatever the number of chips.
    scene_seed, *chip_seeds = np.random.SeedSequence(seed).generate_state(len(chips) + 1, np.uint64).tolist()
    generate_scene(*scene_size, scene_seed).write(folder / "scene.tif", folder / "scene_mask.tif")
    for chip, chip_seed in zip(tqdm(chips, "Generating chips", disable=not show_progress), chip_seeds, strict=True):
        scene = generate_scene(chip_size, chip_size, chip_seed)
        scene.write(chip.with_name(chip.name + IMAGE_SUFFIX), chip.with_name(chip.name + MASK_SUFFIX))
    return folder


def _prepare_folders(folders: Sequence[Path], chips: Sequence[Path]) -> None:
    """Makes the split folders, and refuses to mix the chips with files that are already there."""
    expected = {chip.with_name(chip.name + suffix) for chip in chips for suffix in (IMAGE_SUFFIX, MASK_SUFFIX)}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(set(folder.glob("*.tif")) - expected)
        if strangers:
            raise FileExistsError(
                f"{folder}: expected a folder without other GeoTIFF files, found {len(strangers)}, such as "
                f"{strangers[0].name}. Choose another folder, or remove them."
            )
