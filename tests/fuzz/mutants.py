"""Twelve small GeoTIFFs of the layouts that users have, and damaged copies of them, each made again by its number."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy as copy_dataset

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from tests.scene_factory import CRS_UTM, TRANSFORM


SIDE = 48
_TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}
_LAYOUTS = {
    "striped deflate int16": {"compress": "deflate", "blockysize": 8, "nodata": 0},
    "tiled deflate int16, differences": {"compress": "deflate", "predictor": 2, "interleave": "pixel", **_TILED},
    "tiled LZW int16": {"compress": "lzw", "interleave": "band", **_TILED},
    "striped LZW float32, differences": {"compress": "lzw", "predictor": 3, "dtype": "float32"},
    "tiled Zstandard int16": {"compress": "zstd", **_TILED},
    "striped int16": {"compress": "none", "blockysize": 4, "nodata": -9999},
    "tiled JPEG uint8": {"compress": "jpeg", "dtype": "uint8", "interleave": "band", **_TILED},
    "mask, PackBits uint8": {"compress": "packbits", "dtype": "uint8", "count": 1, "nodata": 255},
    "BigTIFF deflate int16": {"compress": "deflate", "bigtiff": "YES", **_TILED},
    "internal mask, deflate int16": {"compress": "deflate", **_TILED},
    "COG with overviews, deflate int16": {"compress": "deflate", "height": 140, "width": 140, "nodata": 0},
    "sparse deflate float32": {
        "compress": "deflate",
        "dtype": "float32",
        "sparse_ok": True,
        "nodata": -9999,
        **_TILED,
    },
}
_NUMBERS = (0, 1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Seed:
    """A sound file, and where in it pixels and the entries of directories are."""

    name: str
    codec: str
    side: int
    content: bytes
    blocks: tuple[tuple[int, int], ...]  # first byte and number of bytes
    entries: tuple[tuple[int, str], ...]  # first byte, and the form of tag, type, count and value

    @property
    def is_mask(self) -> bool:
        return self.name.startswith("mask")


@dataclass(frozen=True)
class Mutant:
    """A damaged file."""

    seed: Seed
    content: bytes
    place: str  # what is damaged: "pixels", "header" or "end"


def make_seeds(folder: Path) -> list[Seed]:
    """Write the sound files into a folder, and find their parts."""
    seeds = []
    for number, (name, options) in enumerate(_LAYOUTS.items()):
        path, random = folder / f"seed_{number:02d}.tif", np.random.default_rng(number)
        profile = {"dtype": "int16", "count": 6, "height": SIDE, "width": SIDE, **options}
        shape = profile["count"], profile["height"], profile["width"]
        values = (0, 2) if name.startswith("mask") else (1, 250) if profile["dtype"] == "uint8" else (200, 4000)
        pixels = np.sort(random.integers(*values, shape), axis=-1).astype(profile["dtype"])
        is_cog, plain = name.startswith("COG"), folder / "plain.tif"
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                plain if is_cog else path, "w", "GTiff", crs=CRS_UTM, transform=TRANSFORM, **profile
            ) as file,
        ):
            rows = SIDE // 2 if "sparse_ok" in profile else shape[1]  # the lower half of the sparse file is absent
            file.write(pixels[:, :rows], window=rasterio.windows.Window(0, 0, shape[2], rows))
            if "internal mask" in name:
                file.write_mask(np.indices(shape[1:]).sum(0) > SIDE // 2)
            for band, description in enumerate(PRITHVI_BANDS[: shape[0]] if shape[0] > 1 else (), start=1):
                file.set_band_description(band, description)
        if is_cog:
            copy_dataset(plain, path, driver="COG", compress="deflate", blocksize=128)
        content = path.read_bytes()
        about = name, profile["compress"], shape[1], content
        seeds.append(Seed(*about, tuple(_find_blocks(path)), tuple(_find_entries(content))))
    return seeds


def _find_blocks(path: Path):
    """Yield first byte and length of every block of pixels, without those of masks and overviews."""
    with rasterio.open(path) as file:
        for band in file.indexes:
            for (row, column), _ in file.block_windows(band):
                tags = (f"BLOCK_{kind}_{column}_{row}" for kind in ("OFFSET", "SIZE"))
                start, size = (int(file.get_tag_item(tag, "TIFF", bidx=band) or 0) for tag in tags)
                if size:
                    yield start, size


def _find_entries(content: bytes):
    """Yield every entry of the chain of directories."""
    is_big = content[2] == 43
    count_form, entry_form, link_form = ("<Q", "<HHQQ", "<Q") if is_big else ("<H", "<HHII", "<I")
    (start,) = struct.unpack_from(link_form, content, 8 if is_big else 4)
    while start:
        (count,) = struct.unpack_from(count_form, content, start)
        start += struct.calcsize(count_form)
        for _ in range(count):
            yield start, entry_form
            start += struct.calcsize(entry_form)
        (start,) = struct.unpack_from(link_form, content, start)


def make_mutant(seeds: list[Seed], campaign: int, number: int) -> Mutant:
    """Damage a copy of the seed that has its turn; the same campaign and number make the same file."""
    random = np.random.default_rng([campaign, number])
    seed = seeds[number % len(seeds)]
    content = bytearray(seed.content)
    kind = random.choice(
        ["bits", "bytes", "entry", "entry", "entry", "block", "block", "cut", "fill", "copy", "splice"]
    )
    start, size = int(random.integers(len(content))), int(random.integers(1, 64))
    if kind == "bits":
        for place in random.integers(len(content), size=random.integers(1, 9)):
            content[place] ^= 1 << int(random.integers(8))
    elif kind == "bytes":
        for place in random.integers(min(600, len(content)), size=random.integers(1, 5)):
            content[place] = int(random.choice([0, 1, 127, 128, 255]))
    elif kind == "entry":
        place, form = seed.entries[random.integers(len(seed.entries))]
        fields, index = list(struct.unpack_from(form, content, place)), int(random.integers(4))
        number = [*_NUMBERS, len(content), fields[index] + 1, max(fields[index] - 1, 0), fields[index] * 2]
        widths = [struct.calcsize(f"<{code}") for code in form[1:]]
        fields[index] = number[random.integers(len(number))] % 2 ** (8 * widths[index])
        struct.pack_into(form, content, place, *fields)
    elif kind == "block":
        first, length = seed.blocks[random.integers(len(seed.blocks))]
        for place in random.integers(first, first + length, size=random.integers(1, 4)):
            content[place] ^= 1 << int(random.integers(8))
    elif kind == "cut":
        del content[start:]
    elif kind == "fill":
        content[start : start + size] = bytes([int(random.choice([0, 255]))]) * len(content[start : start + size])
    else:
        other = content if kind == "copy" else seeds[random.integers(len(seeds))].content
        source = int(random.integers(len(other)))
        piece = other[source : source + size]
        content[start : start + len(piece)] = piece
        del content[max(len(seed.content), start + 1) :]
    return Mutant(seed, bytes(content), _find_place(seed, bytes(content)))


def _find_place(seed: Seed, content: bytes) -> str:
    """Say which part of a seed is not as it was."""
    if len(content) < len(seed.content):
        return "end"
    old, new = np.frombuffer(seed.content, np.uint8), np.frombuffer(content, np.uint8)[: len(seed.content)]
    is_pixels = np.zeros(len(old), bool)
    for start, size in seed.blocks:
        is_pixels[start : start + size] = True
    return "pixels" if is_pixels[old != new].all() else "header"
