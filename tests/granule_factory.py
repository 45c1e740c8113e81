# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small granules of HLS and Sentinel-2 as they are published: one file per band, named as there."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.scene import Scene
from tests.scene_factory import scene_pixels


SIZE = (72, 90)
ZONE_10 = CRS.from_epsg(32610)
ZONE_11 = CRS.from_epsg(32611)
# In the east of zone 10, where the tiles of zone 11 lie over those of zone 10.
HLS_TRANSFORM = Affine(30.0, 0.0, 699_960.0, 0.0, -30.0, 4_400_040.0)
HLS_CODES = {
    "S30": dict(zip(PRITHVI_BANDS, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True)),
    "L30": dict(zip(PRITHVI_BANDS, ("B02", "B03", "B04", "B05", "B06", "B07"), strict=True)),
}
# What else lies in a granule. A B05 or B06 that is a red edge must not be taken for an infrared.
HLS_OTHERS = {"S30": ("B05", "B06", "B07", "B08"), "L30": ("B09",)}
MONTHS = (("S30", (2021, 6, 24)), ("L30", (2021, 7, 18)), ("S30", (2021, 8, 23)))
CLOUD, ADJACENT, SHADOW, SNOW, WATER, FILL = 2, 4, 8, 16, 32, 255

PRODUCT = "S2A_MSIL2A_20220315T184921_N{baseline}_R113_T10SGJ_20220316T003012"
SENTINEL_2_ORDER = ("B02", "B03", "B04", "B8A", "B11", "B12")


def hls_name(sensor: str, day: Sequence[int], tile: str = "10SGJ") -> str:
    """The name that the files of a granule begin with."""
    return f"HLS.{sensor}.T{tile}.{datetime.date(*day):%Y%j}T184921.v2.0"


def write_hls_granule(
    root: Path,
    sensor: str = "S30",
    day: Sequence[int] = (2021, 6, 24),
    *,
    pixels: np.ndarray | None = None,
    fmask: np.ndarray | None = None,
    tile: str = "10SGJ",
    crs: CRS = ZONE_10,
    transform: Affine = HLS_TRANSFORM,
    leave_out: Sequence[str] = (),
    folder: bool = True,
    tags: bool = False,
    nodata: float | None = -9999,
) -> Path:
    """Writes a granule.

    Args:
        root: where its folder is made.
        sensor: "S30" or "L30".
        day: year, month, day.
        pixels: (6, height, width) int16 in the order of `PRITHVI_BANDS`; random by default.
        fmask: uint8 (height, width); all clear by default.
        tile: MGRS tile.
        crs: of the files.
        transform: of the files.
        leave_out: codes of layers that are missing.
        folder: whether the granule gets a folder of its own.
        tags: whether the files say their scale, as published ones do.
        nodata: tag of the files.

    Returns:
        The folder of its files.
    """
    pixels = scene_pixels(*SIZE, seed=sum(day)) if pixels is None else pixels
    name = hls_name(sensor, day, tile)
    target = root / name if folder else root
    target.mkdir(parents=True, exist_ok=True)
    layers = {code: pixels[index] for index, code in enumerate(HLS_CODES[sensor].values())}
    layers |= {code: np.full_like(pixels[0], 7) for code in HLS_OTHERS[sensor]}
    for code, values in layers.items():
        if code not in leave_out:
            _write(target / f"{name}.{code}.tif", values, crs, transform, nodata, 0.0001 if tags else None)
    if "Fmask" not in leave_out:
        clear = np.zeros(pixels.shape[1:], dtype=np.uint8)
        _write(target / f"{name}.Fmask.tif", clear if fmask is None else fmask, crs, transform, 255, None)
    return target


def with_swath_edge(pixels: np.ndarray, columns: int = 20) -> np.ndarray:
    """Pixels whose left side was not observed, with an edge that slants as a swath's does."""
    pixels = pixels.copy()
    for row in range(pixels.shape[1]):
        pixels[:, row, : columns + row // 8] = -9999
    return pixels


def write_sentinel2(
    folder: Path,
    bands: Mapping[str, np.ndarray],
    *,
    name: str = "T10SGJ_20220315T184921",
    suffix: str = "_{resolution}m",
    crs: CRS = ZONE_10,
    corner: tuple[float, float] = (699_960.0, 4_400_040.0),
    extent: float = 720.0,
    **options,
) -> list[Path]:
    """Writes band files of one extent; the size of an array is the resolution.

    Args:
        folder: where to.
        bands: code to uint16 (height, width).
        name: what the files begin with.
        suffix: what they end with, with the resolution in metres.
        crs: of the files.
        corner: upper left.
        extent: side of the square that all cover, in metres.
        **options: of `write_geotiff`.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for code, values in bands.items():
        side = extent / len(values)
        path = folder / f"{name}_{code}{suffix.format(resolution=round(side))}.tif"
        transform = Affine(side, 0.0, corner[0], 0.0, -side, corner[1])
        write_geotiff(path, values, crs=crs, transform=transform, **options)
        paths.append(path)
    return paths


def sentinel2_bands(side: int = 72, seed: int = 0, low: int = 1200) -> dict[str, np.ndarray]:
    """The six bands as uint16: the visible ones in 10 m, the others in 20 m."""
    random = np.random.default_rng(seed)
    codes = ("B02", "B03", "B04", "B8A", "B11", "B12")
    sizes = [side] * 3 + [side // 2] * 3
    return {
        code: random.integers(low, 5000, (size, size)).astype(np.uint16)
        for code, size in zip(codes, sizes, strict=True)
    }


def product_folder(root: Path, baseline: str) -> Path:
    return root / f"{PRODUCT.format(baseline=baseline)}.SAFE" / "GRANULE" / "L2A_T10SGJ" / "IMG_DATA"


def same_size_bands(seed: int = 0) -> dict[str, np.ndarray]:
    """All bands in 20 m, so that nothing is resampled."""
    bands = sentinel2_bands(seed=seed)
    return {code: values[:36, :36] for code, values in bands.items()}


def stack_bands(bands: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([bands[code] for code in SENTINEL_2_ORDER]).astype(np.float64)


def read_bands(scene: Scene) -> np.ndarray:
    """The six bands in the model's order, whatever the order of the files."""
    frame = scene.frames[0]
    return frame.read([frame.descriptions.index(band) for band in PRITHVI_BANDS])


def _write(
    path: Path, values: np.ndarray, crs: CRS, transform: Affine, nodata: float | None, scale: float | None
) -> None:
    write_geotiff(path, values, crs=crs, transform=transform, nodata=nodata)
    if scale is not None:
        set_scale(path, scale)


def set_scale(path: Path, scale: float, offset: float = 0.0) -> None:
    """Writes scale and offset tags into a file."""
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.scales = [scale] * dataset.count
        dataset.offsets = [offset] * dataset.count


LANDSAT_8 = dict(zip(PRITHVI_BANDS, ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"), strict=True))
LANDSAT_5 = dict(zip(PRITHVI_BANDS, ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"), strict=True))
REFLECTANCE = dict(zip(PRITHVI_BANDS, (0.05, 0.08, 0.07, 0.30, 0.20, 0.12), strict=True))


def write_bands(
    folder: Path,
    names: Mapping[str, str],
    scale: float = 0.0000275,
    offset: float = -0.2,
    dtype: str = "uint16",
    **options,
) -> list[Path]:
    """Writes one file per band, each of one `REFLECTANCE` by a formula, with a column of nodata 0.

    Args:
        folder: where to.
        names: band to the name of its file.
        scale: of number * scale + offset.
        offset: see there.
        dtype: of the files.
        **options: of `write_geotiff`.

    Returns:
        The files, in the order of the names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for band, name in names.items():
        number = (REFLECTANCE[band] - offset) / scale
        values = np.full((24, 24), number if dtype.startswith("float") else round(number)).astype(dtype)
        values[:, 0] = 0
        write_geotiff(folder / name, values, **{"crs": ZONE_10, "transform": HLS_TRANSFORM, **options})
    return [folder / name for name in names.values()]


def read_reflectance(scene: Scene, image_processor, counts: float = 10_000) -> dict[str, float]:
    """Reflectance of each band of a scene's first frame as the image processor takes it, of what is not nodata."""
    frame = scene.frames[0]
    values = frame.read(image_processor.find_bands(frame.descriptions, frame.count))[:, 5, 5]
    return dict(zip(PRITHVI_BANDS, np.round(values.astype(float) / counts, 4).tolist(), strict=True))
