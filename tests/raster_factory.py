"""Small real GeoTIFF files, made when a test asks for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from affine import Affine

from prithvi_hf.data.geotiff import write_geotiff


BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
SEN1FLOODS11_CODES = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
SIZE = 32
PIXEL = 8.983152841195215e-05  # degrees, as in Sen1Floods11
FLOOD_SPLITS = {
    "train": ("Ghana_103272", "Spain_7370579", "Mekong_16233"),
    "valid": ("India_80221",),
    "test": ("Ghana_5079",),
    "bolivia": ("Bolivia_23014",),
}
EVENT_DAYS = {"Ghana": "2018/09/19", "Spain": "2019/09/18", "Cambodia": "2018/08/04", "Bolivia": "2018/02/15"}


def transform_at(longitude: float = -0.78, latitude: float = 38.12) -> Affine:
    """A north-up transform of 10 m pixels."""
    return Affine(PIXEL, 0.0, longitude, 0.0, -PIXEL, latitude)


def write_raster(path: Path, array: np.ndarray, **options) -> Path:
    """Writes an array as a deflated GeoTIFF in EPSG:4326, one strip a band; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height = array.shape[-2]
    layout = {"crs": "EPSG:4326", "transform": transform_at(), "interleave": "band", "blockysize": height}
    write_geotiff(path, array, **{**layout, **options})
    return path


def reflectance(bands: int, size: int | tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Digital numbers of a plausible size, int16 (bands, height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).integers(200, 4000, (bands, height, width)).astype(np.int16)


def labels(size: int | tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """A mask of -1, 0 and 1, int16 (height, width); each value occurs."""
    height, width = (size, size) if isinstance(size, int) else size
    mask = np.random.default_rng(seed).integers(-1, 2, (height, width)).astype(np.int16)
    mask[0, :3] = (-1, 0, 1)
    return mask


def write_chip(path: Path, size: int | tuple[int, int] = SIZE, seed: int = 0, **options) -> Path:
    """An image of the six described bands, int16, nodata tag 0."""
    return write_raster(path, reflectance(6, size, seed), **{"descriptions": BANDS, "nodata": 0, **options})


def write_mask(path: Path, size: int | tuple[int, int] = SIZE, seed: int = 0, **options) -> Path:
    """A mask of -1, 0 and 1."""
    return write_raster(path, labels(size, seed), **options)


def coordinate_array(size: int | tuple[int, int]) -> np.ndarray:
    """int16 (6, height, width): the row in the even bands and the column in the odd ones, each plus 1."""
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    return np.stack([rows, columns] * 3).astype(np.int16)


def cut_off(path: Path, keep: float | int) -> Path:
    """Truncates a file to a share or a number of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    return path


def make_sen1floods11(
    root: Path,
    splits: Mapping[str, Sequence[str]] = FLOOD_SPLITS,
    *,
    size: int = SIZE,
    lists: str = "csv",
    flat: bool = False,
    metadata: bool = True,
) -> Path:
    """A small copy of Sen1Floods11: 13 described int16 bands, nodata tag 0, masks of -1, 0, 1, lists and metadata.

    Args:
        root: the folder that holds `v1.1`, or, if flat, S2Hand and LabelHand.
        splits: chip ids by the name of the list.
        size: height and width in pixels.
        lists: "csv" for rows of file names, "txt" for ids.
        flat: folders side by side instead of the official tree.
        metadata: write the event metadata.
    """
    base = root if flat else root / "v1.1"
    chips = base if flat else base / "data" / "flood_events" / "HandLabeled"
    list_dir = base / "splits" if flat else base / "splits" / "flood_handlabeled"
    list_dir.mkdir(parents=True, exist_ok=True)
    for name, ids in splits.items():
        rows = (f"{chip}_S1Hand.tif,{chip}_LabelHand.tif" if lists == "csv" else chip for chip in ids)
        (list_dir / f"flood_{name}_data.{lists}").write_text("\n".join(rows) + "\n")
        for seed, chip in enumerate(ids):
            image = reflectance(13, size, seed)
            tags = {"descriptions": SEN1FLOODS11_CODES, "nodata": 0}
            write_raster(chips / "S2Hand" / f"{chip}_S2Hand.tif", image, **tags)
            write_mask(chips / "LabelHand" / f"{chip}_LabelHand.tif", size, seed)
    if metadata:
        events = [{"properties": {"location": place, "s2_date": day}} for place, day in EVENT_DAYS.items()]
        (base / "Sen1Floods11_Metadata.geojson").write_text(json.dumps({"features": events}))
    return root


def make_folder(root: Path, ids: Sequence[str], *, image: str = "{}.tif", mask: str | None = "{}_mask.tif") -> Path:
    """Images and masks named by patterns relative to `root`."""
    for seed, chip in enumerate(ids):
        write_chip(root / image.format(chip), seed=seed)
        if mask is not None:
            write_mask(root / mask.format(chip), seed=seed)
    return root
