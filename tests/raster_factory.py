"""Small real GeoTIFF files, made when a test asks for them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.windows import Window

from prithvi_hf.rasters.write_geotiff import write_geotiff


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
BURN_SCARS = {
    "training": ("T10SEH.2018190", "T10SEH.2020245", "T11SKA.2019301", "T12STJ.2021120"),
    "validation": ("T10SEH.2018280", "T13SDV.2020100", "T13SDV.2021200", "T14RQV.2018060"),
}
IRRIGATION_CHIPS = ("T10SFG_chip22", "T10SFG_chip3", "T10TGK_chip1", "T11SKA_chip7", "T14TNM_chip105")
CROP_CHIPS = {
    "training": ("chip_328_501", "chip_100_200", "chip_007_042"),
    "validation": ("chip_329_502", "chip_150_250", "chip_150_251", "chip_400_100"),
}
LANDSLIDES = {"train": (1, 2, 10), "validation": (1, 2), "test": (7,)}
EVENT_DAYS = {"Ghana": "2018/09/19", "Spain": "2019/09/18", "Cambodia": "2018/08/04", "Bolivia": "2018/02/15"}


def transform_at(longitude: float = -0.78, latitude: float = 38.12) -> Affine:
    """A north-up transform of 10 m pixels."""
    return Affine(PIXEL, 0.0, longitude, 0.0, -PIXEL, latitude)


def write_raster(path: Path, array: np.ndarray, **options) -> Path:
    """Writes an array as a deflated GeoTIFF in EPSG:4326, one strip per band; its folder is made."""
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


def write_part(path: Path, array: np.ndarray, rows: slice, **options) -> Path:
    """Writes some rows of an array; the other blocks are absent, as in a file whose writer was killed."""
    count, height, width = array.shape
    layout = {"crs": "EPSG:4326", "transform": transform_at(), "SPARSE_OK": True, **options}
    size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **size, **layout) as dataset:
        part = array[:, rows]
        dataset.write(part, window=Window(0, rows.start, width, part.shape[1]))
    return path


def flip_bit(path: Path, place: int, bit: int = 0) -> Path:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return path


def flip_unnoticed(path: Path) -> Path:
    """Flips a bit of the first deflate block that GDAL decodes to other pixels without an error."""
    with rasterio.open(path) as dataset:
        offset, size = (int(dataset.get_tag_item(f"BLOCK_{kind}_0_0", "TIFF", bidx=1)) for kind in ("OFFSET", "SIZE"))
        expected = dataset.read()
    for place in range(offset + 2, offset + size - 4):
        flip_bit(path, place)
        with suppress(RasterioError), rasterio.open(path) as dataset:
            if (dataset.read() != expected).any():
                return path
        flip_bit(path, place)
    raise AssertionError("every flip is noticed")


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
        events = [
            {"properties": {"location": place, "s2_date": day, "ISO_CC": place[:3].upper()}}
            for place, day in EVENT_DAYS.items()
        ]
        (base / "Sen1Floods11_Metadata.geojson").write_text(json.dumps({"features": events}))
    return root


def with_side_file(path: Path) -> Path:
    """Puts the `._*` file beside a file that macOS packs into archives."""
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    return path


def hls_layout(zone: int = 10) -> dict:
    """30 m pixels of a UTM zone, pixel-interleaved, as HLS chips have them."""
    transform = Affine(30.0, 0.0, 500_000.0, 0.0, -30.0, 4_400_000.0)
    return {"crs": f"EPSG:{32600 + zone}", "transform": transform, "interleave": "pixel"}


def class_mask(values: Sequence[int], size: int = SIZE, seed: int = 0, dtype: str = "uint8") -> np.ndarray:
    """A mask in which each of the values occurs."""
    values = np.asarray(values)
    places = np.random.default_rng(seed).permutation(np.arange(size * size) % len(values))
    return values[places].reshape(size, size).astype(dtype)


def make_burn_scars(root: Path, folders: Mapping[str, Sequence[str]] = BURN_SCARS, *, size: int = SIZE) -> Path:
    """A small copy of the HLS burn scars: float32 reflectance with the nodata value -9999, int16 masks of -1, 0, 1.

    Args:
        root: the folder that holds `training` and `validation`.
        folders: tile and day of the chips, "T10SEH.2018190", by folder.
        size: height and width in pixels.
    """
    for folder, chips in folders.items():
        for seed, chip in enumerate(chips):
            stem = root / folder / f"subsetted_512x512_HLS.S30.{chip}.v1.4"
            image = reflectance(6, size, seed).astype(np.float32) / 10_000
            image[:, -1, -4:] = -9999
            layout = hls_layout(int(chip[1:3]))
            with_side_file(write_raster(Path(f"{stem}_merged.tif"), image, nodata=-9999, **layout))
            mask = labels(size, seed)
            mask[-1, -4:] = -1  # no label where there is no data
            with_side_file(write_raster(Path(f"{stem}.mask.tif"), mask, **layout))
    return root


def make_irrigation_scenes(
    root: Path, chips: Sequence[str] = IRRIGATION_CHIPS, *, months: Sequence[int] = (1, 2, 3, 4), size: int = SIZE
) -> Path:
    """A small copy of the HLS irrigation scenes: float32 reflectance, one file a month, masks of 0, 1 to 16 and 255.

    Args:
        root: the folder that holds `month1` to `month4` and `masks`.
        chips: ids such as "T10SFG_chip22".
        months: months to write.
        size: height and width in pixels.
    """
    for seed, chip in enumerate(chips):
        layout = hls_layout(int(chip[1:3]))
        for month in months:
            image = reflectance(6, size, 100 * month + seed).astype(np.float32) / 10_000
            with_side_file(write_raster(root / f"month{month}" / f"scene_m{month:02}_{chip}.tif", image, **layout))
        mask = class_mask([*range(17), 255], size, seed)
        with_side_file(write_raster(root / "masks" / f"mask_{chip}.tif", mask, **layout))
    return root


def make_crops(
    root: Path,
    folders: Mapping[str, Sequence[str]] = CROP_CHIPS,
    *,
    size: int = SIZE,
    lists: bool = True,
    dates: bool = True,
) -> Path:
    """A small copy of the multi-temporal crops: int16, 18 bands (three dates of six), masks of 0 to 13.

    Args:
        root: the folder that holds `training_chips` and `validation_chips`.
        folders: ids such as "chip_328_501" by "training" and "validation".
        size: height and width in pixels.
        lists: write `training_data.txt` and `validation_data.txt`.
        dates: write `chips_df.csv`.
    """
    layout = {**hls_layout(), "crs": "EPSG:5070"}
    for name, chips in folders.items():
        for seed, chip in enumerate(chips):
            stem = root / f"{name}_chips" / chip
            with_side_file(write_raster(Path(f"{stem}_merged.tif"), reflectance(18, size, seed), **layout))
            with_side_file(write_raster(Path(f"{stem}.mask.tif"), class_mask(range(14), size, seed), **layout))
        if lists:
            (root / f"{name}_data.txt").write_text("".join(f"{chip}\n" for chip in chips))
    if dates:
        rows = [f"{chip},2022-03-24,2022-06-{day:02},2022-09-15" for day, chip in enumerate(_all(folders), 1)]
        header = "chip_id,first_img_date,middle_img_date,last_img_date"
        (root / "chips_df.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def make_landslides(root: Path, splits: Mapping[str, Sequence[int]] = LANDSLIDES) -> Path:
    """A small copy of Landslide4Sense: HDF5 files of 14 bands (float64) and masks of 0 and 1, of 128 pixels.

    Args:
        root: the folder that holds `images` and `annotations`.
        splits: numbers of the patches by split.
    """
    import h5py

    for seed, (split, number) in enumerate((name, number) for name in splits for number in splits[name]):
        image = np.random.default_rng(seed).normal(1, 0.3, (128, 128, 14)).round(2)
        for kind, name, values in (("images", "img", image), ("annotations", "mask", class_mask((0, 1), 128, seed))):
            path = root / kind / split / f"{'image' if name == 'img' else 'mask'}_{number}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file.create_dataset(name, data=values, compression="gzip")
    return root


def _all(folders: Mapping[str, Sequence[str]]) -> list[str]:
    return [chip for chips in folders.values() for chip in chips]


def pack(root: Path, *names: str) -> bytes:
    """A .tar.gz of files and folders below `root`, side files included."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            tar.add(root / name, name)
    return buffer.getvalue()


def hub_files(name: str, root: Path) -> tuple[str, dict[str, bytes]]:
    """The Hub repository of a data set made above, and its files: archives, and what lies there unpacked.

    Args:
        name: "hls_burn_scars", "hls_irrigation_scenes", "multi_temporal_crop" or "landslide4sense".
        root: the folder that the data set was made in.
    """
    if name == "multi_temporal_crop":
        archives = {f"{folder}.tgz": pack(root, folder) for folder in ("training_chips", "validation_chips")}
        lists = ("training_data.txt", "validation_data.txt", "chips_df.csv")
        plain = {path: (root / path).read_bytes() for path in lists}
        return "ibm-nasa-geospatial/multi-temporal-crop-classification", {**archives, **plain}
    if name == "landslide4sense":
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.h5")}
        return "ibm-nasa-geospatial/Landslide4sense", files
    folders = sorted(path.name for path in root.iterdir())
    return f"ibm-nasa-geospatial/{name}", {f"{name}.tar.gz": pack(root, *folders), "README.md": b"# chips\n"}


def make_folder(root: Path, ids: Sequence[str], *, image: str = "{}.tif", mask: str | None = "{}_mask.tif") -> Path:
    """Images and masks named by patterns relative to `root`."""
    for seed, chip in enumerate(ids):
        write_chip(root / image.format(chip), seed=seed)
        if mask is not None:
            write_mask(root / mask.format(chip), seed=seed)
    return root


def smooth_field(size: int, seed: int, cells: int = 4) -> np.ndarray:
    """Blobs between 0 and 1, float64 (size, size): a coarse random grid, interpolated between its nodes."""
    nodes = np.random.default_rng(seed).random((cells + 1, cells + 1))
    places = np.linspace(0, cells, size)
    rows = np.array([np.interp(places, np.arange(cells + 1), column) for column in nodes.T]).T
    return np.array([np.interp(places, np.arange(cells + 1), row) for row in rows])


def make_biomass(root: Path, splits: Mapping[str, int], *, size: int = SIZE, dtype: str = "float32") -> Path:
    """Chips whose biomass, `*_agb.tif` in Mg/ha, follows from the near infrared: what a model can learn.

    Every first row has no value (the nodata tag -9999, or 65535 of uint16), and uint16 holds tenths of Mg/ha.
    """
    seed = 0
    for split, count in splits.items():
        for number in range(count):
            field, seed = smooth_field(size, seed), seed + 1
            bands = reflectance(6, size, seed) // 20 + 300
            bands[3] = 500 + 3000 * field
            write_raster(root / split / f"{number}_image.tif", bands, descriptions=BANDS, nodata=0)
            biomass = 20 + 300 * field
            if dtype != "float32":
                biomass *= 10
            nodata = -9999 if dtype == "float32" else 65535
            biomass[0] = nodata
            write_raster(root / split / f"{number}_agb.tif", biomass.astype(dtype), nodata=nodata)
    return root


def make_land_cover(root: Path, splits: Mapping[str, int], *, size: int = SIZE, several: bool = False) -> Path:
    """Chips of three land covers, told by the brightness of a band: in folders per class, or in a table of several."""
    names, seed, rows = ("Forest", "River", "Town"), 0, ["file_name,split,labels"]
    for split, count in splits.items():
        for number in range(count):
            seed += 1
            draw = np.random.default_rng(seed).integers(0, 2, 3) if several else np.eye(3)[number % 3]
            present = [name for name, there in zip(names, draw, strict=True) if there]
            bands = reflectance(6, size, seed) // 20 + 300
            for band, there in zip((3, 0, 4), draw, strict=True):
                bands[band] += int(2500 * there)
            folder = root / "images" if several else root / split / present[0]
            write_raster(folder / f"{split}_{number}.tif", bands, descriptions=BANDS, nodata=0)
            rows.append(f"{split}_{number}.tif,{split},{';'.join(present)}")
    if several:
        (root / "metadata.csv").write_text("\n".join(rows))
    return root
