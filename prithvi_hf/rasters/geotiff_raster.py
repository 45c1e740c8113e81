# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A GeoTIFF file whose pixels are read when asked for.

Every pixel that enters the package comes through [`GeoTiffRaster`]. It knows a file's header and opens the file again
for each read, so it holds no GDAL handle, pickles, and is safe in threads and in worker processes of any start method.
"""

import io
import logging as python_logging
import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile
from rasterio.session import DummySession
from transformers.utils import logging

from prithvi_hf.models.prithvi.pixel_values_prithvi import has_alpha
from prithvi_hf.rasters import raster as rasters
from prithvi_hf.rasters.raster import (
    GDAL_ERRORS,
    GeoTiffDecodeError,
    GeoTiffError,
    GeoTiffNotFoundError,
    Raster,
    Window,
    find_proj_problem,
)
from prithvi_hf.rasters.tiff_blocks import COMPRESSION, COMPRESSION_NAMES, GDAL_NODATA, read_blocks, read_tags


logger = logging.get_logger(__name__)

# GDAL decodes whole blocks (tiles or strips). A block above the first figure must be backed by a file of at least
# 1/ratio of its size: real compression stays below about 1,000 : 1, a forged header of a few bytes does not.
MAX_UNBACKED_BLOCK_BYTES = 64 * 2**20
MAX_BLOCK_RATIO = 2_000
# Reading what a header says of its bands takes milliseconds per band; hyperspectral sensors have some hundreds.
MAX_BANDS = 4_096

# A folder of a thousand chips is not listed at each open; side files (.aux.xml, .msk) are still found by name.
_GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
# How GeoPackages, shapefiles and FlatGeobufs start; GeoJSON starts with a brace.
_POLYGON_FILES = (b"SQLite f", b"\x00\x00\x27\x0a", b"fgb\x03")
# What GDAL says, and no more than that, where the end of a file is missing: tags behind it are lost.
_TRUNCATED = ("IO error", "Failed to read directory")
# What it says of a sound file in a compression that it was built without.
_NO_CODEC = ("missing codec", "Old-JPEG compression")
_ABSENT = (
    "are absent, as where a program was ended before it had written all, and the file declares no nodata value that "
    "they could stand for. Write or copy it again; if it is sparse on purpose, say so: `gdal_edit.py -a_nodata 0`."
)
_CORRUPT = "do not fit their own checksums: the file is damaged. Copy or download it again."

# Labels and arrays without georeference are ordinary input. Only warnings raised from here are silenced, and once for
# all: `warnings.catch_warnings` around each open would not be safe in threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"prithvi_hf\.rasters\.geotiff_raster$")


class _GdalLog(python_logging.Logger):
    """rasterio's logger of what GDAL says; what it says of a header goes to whoever opens the file in this thread.

    Whatever a program silences, so that no loss of tags stays unnoticed.
    """

    header = threading.local()

    def isEnabledFor(self, level: int) -> bool:
        return hasattr(self.header, "messages") or super().isEnabledFor(level)

    def handle(self, record: python_logging.LogRecord) -> None:
        if hasattr(self.header, "messages"):
            self.header.messages.append(record.getMessage())
        else:
            super().handle(record)


python_logging.getLogger("rasterio._env").__class__ = _GdalLog


class OpenFiles:
    """Files that stay open from one read to the next, for whoever reads small windows of the same ones all the time.

    Opening a file and finding its blocks takes as long as decoding a window of 224 x 224 pixels. Within `with
    open_files:` files that this thread reads are opened once, and the `most` that were read last stay open. Only one
    thread at a time may use it; a process that gets it by a fork or a pickle opens files of its own. Files that change
    meanwhile may be read as they were.
    """

    here = threading.local()  # the one in use

    def __init__(self, most: int = 256) -> None:
        self.most, self.process, self.datasets = most, 0, OrderedDict[str, DatasetReader]()

    def __getstate__(self) -> dict[str, Any]:
        return {"most": self.most, "process": 0, "datasets": OrderedDict()}

    def __enter__(self) -> None:
        if self.process != os.getpid():  # handles of the parent share their places in the files
            self.process, self.datasets = os.getpid(), OrderedDict()
        self.here.files = self

    def __exit__(self, *error: object) -> None:
        self.here.files = None


@dataclass(frozen=True)
class GeoTiffHeader:
    """What a GeoTIFF says about itself, for all its bands."""

    count: int
    height: int
    width: int
    dtype: str
    crs: CRS | None
    transform: Affine
    nodata: float | None
    descriptions: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    has_mask: bool
    alpha_band: int | None
    irregular: str | None
    pages: int
    block_shape: tuple[int, int]


class GeoTiffRaster(Raster):
    """A GeoTIFF whose pixels are read when asked for.

    Creating one reads the header only. Each read opens the file, reads the wanted bands of the wanted window, and
    closes it again. Only regular local files and bytes are accepted, and only GDAL's GTiff driver ever sees them.

    Args:
        path (`str` or `os.PathLike`, *optional*): a local GeoTIFF. With `content` it is only the name in messages.
        content (`bytes`, *optional*): the bytes of a GeoTIFF file.
        allow_missing_blocks (`bool`, defaults to `False`): whether a file may be opened whose end is missing, if its
            directories are there. Reading its missing blocks raises `GeoTiffDecodeError`.

    Attributes:
        name (`str`): path, or "<bytes>", for messages.
        path (`str`, *optional*): absolute path, None for bytes.
        content (`bytes`, *optional*): the bytes, None for a file.

    The others are those of [`Raster`]: `dtype`, `crs`, `transform`, `nodata`, `descriptions`, `scales`, `offsets`,
    `shape` (bands, height, width) and more, which follow what `select` chooses.

    Raises:
        GeoTiffError: the file is missing, remote, truncated, not a GeoTIFF, or its header is not credible.

    Example:
    ```python
    >>> raster = GeoTiffRaster("chip.tif")
    >>> raster.shape, raster.descriptions[:2]
    ((13, 512, 512), ('B1', 'B2'))
    >>> raster.select(bands=[1, 2, 3], window=(0, 0, 224, 224)).read().shape
    (3, 224, 224)
    ```
    """

    # Blocks known to be unreadable, bool (planes, rows, columns), with their size in pixels and what is wrong.
    _faults: tuple[tuple[np.ndarray, tuple[int, int], str], ...] = ()
    _verified = False

    def __init__(
        self,
        path: str | os.PathLike | None = None,
        content: bytes | None = None,
        *,
        allow_missing_blocks: bool = False,
    ) -> None:
        if path is None and content is None:
            raise GeoTiffError(
                "GeoTiffRaster expects a path or the bytes of a GeoTIFF, found neither. Pass one of them."
            )
        self.content = None if content is None else bytes(content)
        self.name = name = "<bytes>" if path is None else os.fspath(path)
        if content is None:
            # An absolute path cannot be taken by GDAL for one of its own protocols.
            if name.startswith("/vsi") or "://" in name or "::" in name:
                raise GeoTiffError(
                    f"{name}: expected a local GeoTIFF file, found a remote or virtual path. Download or extract the "
                    "file first, or pass its bytes."
                )
            self.path = place = os.path.abspath(os.path.expanduser(name))
            if not os.path.exists(place):
                raise _make_not_found_error(name, place)
            if not os.path.isfile(place):
                raise GeoTiffError(
                    f"{name}: expected a regular GeoTIFF file, found a directory or device. A folder of bands is a "
                    'frame of `predict_scene`, of `pipe(..., output="map.tif")` and of `prithvi-hf predict`.'
                )
            self._load_header(os.path.getsize(place), allow_missing_blocks)
        else:
            self._load_header(len(content), allow_missing_blocks)

    def _load_header(self, file_bytes: int, allow_missing_blocks: bool = False) -> None:
        """Read and check the header of the file, which is `file_bytes` long."""
        _GdalLog.header.messages = []
        try:
            with self._open() as dataset:
                header = _read_header(dataset, self.name, file_bytes)
                lost = [text for text in _GdalLog.header.messages if any(words in text for words in _TRUNCATED)]
                beyond = not lost and _ends_beyond(dataset, file_bytes)
        except GDAL_ERRORS as error:  # of a directory that is read only now, the mask's
            raise GeoTiffError(
                f"{self.name}: expected a complete GeoTIFF, found one that cannot be read ({_find_cause(error)}): it "
                "is truncated or damaged. Copy or download it again."
            ) from error
        except UnicodeDecodeError as error:
            raise GeoTiffError(
                f"{self.name}: expected names of bands and tags in UTF-8, found {error.object!r}. Write the names "
                "again, or copy or download the file again if it is damaged."
            ) from error
        finally:
            del _GdalLog.header.messages
        if lost or (beyond and not allow_missing_blocks):
            found = lost[0].split("msg=")[-1] if lost else "blocks of pixels beyond its end"
            raise GeoTiffError(
                f"{self.name}: expected a complete GeoTIFF, found {found}: it is truncated. Copy or download it again."
            )
        if beyond:
            logger.warning(f"{self.name}: found blocks of pixels beyond its end; these count as unreadable.")
        if header.pages > 1:
            self.name = f"{self.name} (the first of {header.pages} pages)"
        if header.dtype in ("int64", "uint64"):
            # rasterio takes nodata for a float64, which above 2**53 is another number, and GDAL reads -9.2e18 as -9.
            with self._open_bytes() as file:
                text = read_tags(file, [GDAL_NODATA]).get(GDAL_NODATA, np.zeros(0, "S1")).tobytes().strip(b"\0 ")
            with suppress(ValueError, OverflowError):  # what is not a whole number of the type stays as it is read
                value = int(text) if text.lstrip(b"-").isdigit() else int(float(text))
                exact = np.dtype(header.dtype).type(value)
                header = replace(header, nodata=exact if abs(value) > 2**53 else float(value))
        # Holes of a sparse file are nodata where the file says what is; anywhere else they read as 0.
        if header.nodata is None and not header.has_mask and header.alpha_band is None:
            with self._open_bytes() as file:
                blocks = read_blocks(file)
            if blocks is not None and (absent := blocks.find_absent()).any():
                self._faults = ((absent, blocks.shape, _ABSENT),)
        self._set_header(header)

    def _set_header(self, header: GeoTiffHeader) -> None:
        """Take over what a header says; `name`, `path` and `content` are set before."""
        self._header = header
        self.irregular = header.irregular
        super().__init__(
            name=self.name,
            dtype=header.dtype,
            size=(header.height, header.width),
            descriptions=header.descriptions,
            nodata=header.nodata,
            crs=header.crs,
            transform=header.transform,
            path=self.path,
            block_shape=header.block_shape,
            tags=(header.scales, header.offsets),
        )

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        self.check_blocks(bands, window)
        return self._decode(window, [band + 1 for band in bands])

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        """Read where the file's own mask band, or else its alpha band, says that there is no data.

        The nodata tag is not part of it. An alpha band counts only where it is not data: writers mark the fourth
        band of 8-bit files as alpha, so a band that is described, or was selected by index, is an ordinary band.
        """
        alpha = self._header.alpha_band
        if self._header.has_mask:
            return self._decode(window, None) == 0
        return None if alpha is None or alpha in self._chosen else self._decode(window, alpha + 1) == 0

    def read_tag(self, name: str) -> str | None:
        """Read one metadata item of the file as a whole, such as "PROCESSING_BASELINE"; None where there is none."""
        with self._open() as dataset:
            try:
                return dataset.get_tag_item(name)
            except (UnicodeDecodeError, *GDAL_ERRORS) as error:
                raise GeoTiffError(
                    f"{self.name}: expected metadata {name} as text, found what cannot be read ({error}): the file is "
                    "damaged. Copy or download it again."
                ) from error

    @property
    def provenance(self) -> dict[str, Any]:
        """Whether blocks that fail their checksums are errors."""
        return {"verified": True} if self._verified else {}

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        """Open the file or the bytes with the GTiff driver alone, and close it on leaving, if it is not to be kept."""
        kept = getattr(OpenFiles.here, "files", None) if self.content is None else None
        with rasterio.Env(session=DummySession(), **_GDAL_OPTIONS), ExitStack() as stack:
            if kept is not None and self.path in kept.datasets:
                kept.datasets.move_to_end(self.path)
                yield kept.datasets[self.path]
                return
            try:
                target = self.path if self.content is None else stack.enter_context(MemoryFile(self.content)).name
                dataset = DatasetReader(target, driver="GTiff")
                if kept is None:
                    stack.enter_context(dataset)
                else:
                    kept.datasets[self.path] = dataset
                    if len(kept.datasets) > kept.most:
                        kept.datasets.popitem(last=False)[1].close()
            except GDAL_ERRORS as error:
                path, start = self.path, (self.content or b"")[:8]
                if path is not None and self.content is None:
                    if not os.path.exists(path):  # it was there when its header was read
                        raise _make_not_found_error(self.name, path) from error
                    with open(path, "rb") as file:
                        start = file.read(8)
                if any(words in _find_cause(error) for words in _NO_CODEC):
                    with self._open_bytes() as file:
                        code = int(read_tags(file, [COMPRESSION]).get(COMPRESSION, [0])[0])
                    raise GeoTiffError(
                        f"{self.name}: expected a compression that GDAL can decode here, found "
                        f"{COMPRESSION_NAMES.get(code, 'one without a name')} (TIFF's number {code}). The file may be "
                        "sound: rewrite it where GDAL has this codec, `gdal_translate -co COMPRESS=DEFLATE IN OUT`."
                    ) from error
                found = f"a TIFF that cannot be opened ({_find_cause(error)}): it is truncated or damaged"
                if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                    found = f"a file that starts with {start!r}" if start else "an empty file"
                remedy = "Convert it with `gdal_translate -of GTiff`, or copy or download it again."
                if start.startswith(_POLYGON_FILES) or start.lstrip().startswith(b"{"):
                    remedy = "Put its polygons on the grid of the image with `prithvi-hf rasterize`."
                raise GeoTiffError(f"{self.name}: expected a GeoTIFF, found {found}. {remedy}") from error
            yield dataset

    def _open_bytes(self) -> BinaryIO:
        """Open the file as bytes; of a raster that is not a local file there are none."""
        return open(self.path, "rb") if self.path is not None else io.BytesIO(self.content or b"")

    def verify(self) -> None:
        """Check the blocks of pixels against their own checksums; those that do not fit are then errors when read.

        GDAL decodes some damage without noticing it. Only deflate has checksums: of other compressions, of remote
        files and of masks and overviews inside the file nothing can be told. The whole file is read.
        """
        with self._open_bytes() as file:
            blocks = read_blocks(file)
            if blocks is not None:
                values = math.prod(blocks.shape) * self._header.count // len(blocks.offsets)
                corrupt = blocks.find_corrupt(file, values * np.dtype(self.dtype).itemsize)
                self._faults = (*self._faults, (corrupt, blocks.shape, _CORRUPT))
        self._verified = True

    def check_blocks(self, bands: Sequence[int] | None = None, window: Window | None = None) -> None:
        """Raise a GeoTiffDecodeError where blocks are known to be absent or, once verified, to fail their checksums.

        Bands (0-based) and window are those of the whole file; None is all of it.
        """
        row, column, height, width = window or (0, 0, self._header.height, self._header.width)
        for faulty, (down, right), text in self._faults:
            parts = faulty[
                :, row // down : -(-(row + height) // down), column // right : -(-(column + width) // right)
            ]
            if (parts if bands is None or len(parts) == 1 else parts[list(bands)]).any():
                damage = GeoTiffDecodeError(f"{self.name}: {faulty.sum():,} of {faulty.size:,} blocks {text}")
                damage.file = self.name
                raise damage

    def _decode(self, window: Window, indexes: list[int] | int | None) -> np.ndarray:
        """Open the file and read a window of bands, counted from 1, or of its mask for None."""
        header, (row, column, height, width) = self._header, window
        with self._open() as dataset:
            expected = (header.count, header.height, header.width, header.dtype)
            found = (dataset.count, dataset.height, dataset.width, dataset.dtypes[0])
            if found != expected:
                text = "{} bands of {} x {} pixels of {}"
                raise GeoTiffError(
                    f"{self.name}: expected {text.format(*expected)} as when it was opened, found "
                    f"{text.format(*found)}: the file changed while it was read. Run again when nothing writes to it."
                )
            try:
                place = rasterio.windows.Window(column, row, width, height)
                return dataset.read_masks(1, window=place) if indexes is None else dataset.read(indexes, window=place)
            except GDAL_ERRORS as error:
                damage = GeoTiffDecodeError(
                    f"{self.name}: its header promises {header.count} bands of {header.height} x {header.width} "
                    f"pixels, but they cannot be decoded ({_find_cause(error)}): the file is damaged. Copy or "
                    "download it again."
                )
                damage.file = self.name
                raise damage from error


def _read_header(dataset: DatasetReader, name: str, file_bytes: int) -> GeoTiffHeader:
    """Read and check what is needed later, so that the file need not stay open."""
    if problem := find_proj_problem():
        raise GeoTiffError(f"{name}: {problem}")
    dtype, count = dataset.dtypes[0], dataset.count
    if dtype.startswith("complex"):
        raise GeoTiffError(
            f"{name}: expected integer or float pixels, found {dtype}. Write its parts as separate bands."
        )
    if count > MAX_BANDS:
        raise GeoTiffError(
            f"{name}: expected at most {MAX_BANDS:,} bands, found {count:,}. Write the bands that are needed to a "
            "file of their own, e.g. `gdal_translate -b 1 -b 2`, or raise prithvi_hf.rasters.geotiff_raster.MAX_BANDS."
        )
    # A header can ask for blocks that would take far more memory than the file can hold.
    block_shape = max(dataset.block_shapes, key=math.prod)
    bands_in_block = count if dataset.interleaving == Interleaving.pixel else 1
    block_bytes = math.prod(block_shape) * bands_in_block * np.dtype(dtype).itemsize
    most = min(max(MAX_UNBACKED_BLOCK_BYTES, MAX_BLOCK_RATIO * file_bytes), rasters.MAX_READ_BYTES)
    if block_bytes > most:
        raise GeoTiffError(
            f"{name}: its header asks for blocks of {block_shape[0]} x {block_shape[1]} x {bands_in_block} pixels "
            f"({block_bytes:,} bytes each) in a file of {file_bytes:,} bytes, which is not credible. Rewrite it with "
            "small blocks, e.g. `gdal_translate -co TILED=YES`."
        )
    # What else than a transform may place pixels; orthorectified products keep the RPCs of their raw images.
    numbers = tuple(dataset.transform)[:6]
    is_placed = dataset.crs is not None and numbers != (1, 0, 0, 0, 1, 0)
    irregular = None
    if not is_placed and dataset.tags(ns="RPC"):
        irregular = (
            "rational polynomial coefficients (RPC) instead of a transform. Warp it first: `gdalwarp -rpc IN OUT`."
        )
    elif dataset.gcps[0]:
        irregular = "ground control points instead of a transform. Warp it first, for example `gdalwarp -tps IN OUT`."
    elif not is_placed and dataset.tags(ns="GEOLOCATION"):
        irregular = "geolocation arrays instead of a transform. Warp it first: `gdalwarp -geoloc IN OUT`."
    elif not math.isfinite(sum(numbers)) or numbers[0] * numbers[4] == numbers[1] * numbers[3]:
        irregular = f"the transform {numbers}, which places no pixels. Correct it: `gdal_edit.py -a_ullr`."
    flags, interpretations = dataset.mask_flag_enums[0], dataset.colorinterp
    alpha = interpretations.index(ColorInterp.alpha) if ColorInterp.alpha in interpretations else None
    descriptions = list(dataset.descriptions)
    if alpha is not None and descriptions[alpha]:
        alpha = alpha if has_alpha(descriptions[: alpha + 1]) else None
    elif alpha is not None:
        descriptions[alpha] = "alpha"
    return GeoTiffHeader(
        count=count,
        height=dataset.height,
        width=dataset.width,
        dtype=dtype,
        crs=dataset.crs,
        transform=dataset.transform,
        nodata=dataset.nodata,
        descriptions=tuple(descriptions),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        has_mask=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        alpha_band=alpha,
        irregular=irregular,
        pages=max(1, len(dataset.subdatasets)),
        block_shape=block_shape,
    )


def _ends_beyond(dataset: DatasetReader, file_bytes: int) -> bool:
    """Whether the last block of a band is beyond the end of the file; files have their blocks in order.

    Where they have not, reading the missing blocks is an error.
    """
    height, width = dataset.block_shapes[0]
    place = f"{-(-dataset.width // width) - 1}_{-(-dataset.height // height) - 1}"
    for band in [1] if dataset.interleaving == Interleaving.pixel else dataset.indexes:
        # Absent blocks, of which sparse files are made, have no offset.
        offset, size = (
            dataset.get_tag_item(f"BLOCK_{kind}_{place}", "TIFF", bidx=band) for kind in ("OFFSET", "SIZE")
        )
        if int(offset or 0) + int(size or 0) > file_bytes:
            return True
    return False


def _make_not_found_error(name: str, path: str) -> GeoTiffNotFoundError:
    remedy = "found nothing there. Check the path, or restore the file."
    if os.path.islink(path):
        remedy = (
            f"found a link to {os.readlink(path)}, which cannot be reached. Restore that file, or remove or renew the "
            "link."
        )
    return GeoTiffNotFoundError(f"{name}: expected a GeoTIFF file, {remedy}")


def _find_cause(error: BaseException) -> str:
    """Give the innermost message of an error: rasterio's own often says only that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
