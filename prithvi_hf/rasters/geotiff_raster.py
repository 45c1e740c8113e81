# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A GeoTIFF file whose pixels are read when asked for.

Every pixel that enters the package comes through [`GeoTiffRaster`]. It knows a file's header and opens the file anew
for each read, so it holds no GDAL handle, pickles, and is safe in threads and in worker processes of any start method.
"""

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.session import DummySession
from rasterio.windows import Window
from transformers.utils import logging

from prithvi_hf.rasters.selection import RasterSelection
from prithvi_hf.rasters.tiff_layout import find_tiff_fault


logger = logging.get_logger(__name__)

# The pixels that one read may put into memory, in bytes of the file's own data type.
MAX_READ_BYTES = 4 * 2**30
# GDAL decodes whole blocks (tiles or strips). A block above the first figure must be backed by a file of at least
# 1/ratio of its size: real compression stays below about 1,000 : 1, a forged header of a few bytes does not.
MAX_UNBACKED_BLOCK_BYTES = 64 * 2**20
MAX_BLOCK_RATIO = 2_000
# Reading what a header says of its bands takes milliseconds a band; hyperspectral sensors have some hundreds.
MAX_BANDS = 4_096

# A folder of a thousand chips is not listed at each open; side files (.aux.xml, .msk) are still found by name.
_GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}

# Labels and arrays without georeference are ordinary input. Only warnings raised from here are silenced, and once for
# all: `warnings.catch_warnings` around each open would not be safe in threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"prithvi_hf\.rasters\.geotiff_raster$")


class GeoTiffError(ValueError):
    """A file that cannot be read as a GeoTIFF; the message names the file, what was expected and the remedy."""


class GeoTiffNotFoundError(GeoTiffError, FileNotFoundError):
    """A GeoTIFF that does not exist."""


class GeoTiffDecodeError(GeoTiffError):
    """Blocks of pixels that cannot be decoded, in a file whose header is sound.

    Attributes:
        file (`str`, *optional*): what the file is called.
    """

    file: str | None = None


@dataclass(frozen=True)
class _Header:
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
    has_ground_control_points: bool
    block_shape: tuple[int, int]


class GeoTiffRaster(RasterSelection):
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
        dtype (`str`): numpy name of the pixel type.
        crs (`rasterio.crs.CRS`, *optional*): coordinate reference system, None when the file states none.
        transform (`affine.Affine`): from (column, row) of the selected window to coordinates of the CRS.
        nodata (`float`, *optional*): the nodata tag.
        descriptions (`tuple[str | None, ...]`): band names of the selected bands.
        scales, offsets (`tuple[float, ...]`): the file's scale and offset tags of the selected bands, not applied.
        shape (`tuple[int, int, int]`): (bands, height, width) of the selection; also `count`, `height`, `width`.

    Raises:
        GeoTiffError: the file is missing, remote, not a GeoTIFF, or its header is not credible.

    Example:
    ```python
    >>> raster = GeoTiffRaster("chip.tif")
    >>> raster.shape, raster.descriptions[:2]
    ((13, 512, 512), ('B1', 'B2'))
    >>> raster.select(bands=[1, 2, 3], window=(0, 0, 224, 224)).read().shape
    (3, 224, 224)
    ```
    """

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
        self.name = "<bytes>" if path is None else os.fspath(path)
        self.path = _local_path(self.name) if content is None else None
        self._allow_missing_blocks = allow_missing_blocks
        self._check()
        try:
            with self._open() as dataset:
                self._header = _read_header(dataset, self.name, self._file_bytes())
        except UnicodeDecodeError as error:
            raise GeoTiffError(
                f"{self.name}: expected names of bands and tags in UTF-8, found {error.object!r}. Write the names "
                "anew, or copy or download the file again if it is damaged."
            ) from error
        self._bands: tuple[int, ...] | None = None
        self._window = (0, 0, self._header.height, self._header.width)

    @property
    def dtype(self) -> str:
        """Numpy name of the pixel type."""
        return self._header.dtype

    @property
    def has_ground_control_points(self) -> bool:
        """Whether the file is georeferenced by ground control points instead of a transform."""
        return self._header.has_ground_control_points

    @property
    def block_shape(self) -> tuple[int, int]:
        """(height, width) of the largest blocks that the file is decoded in."""
        return self._header.block_shape

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system, None when the file states none."""
        return self._header.crs

    @property
    def whole_transform(self) -> Affine:
        """Affine from (column, row) of the file to the coordinates of the CRS."""
        return self._header.transform

    @property
    def nodata(self) -> float | None:
        """The file's nodata tag."""
        return self._header.nodata

    @property
    def bands(self) -> tuple[int, ...]:
        """0-based file indices of the selected bands."""
        return tuple(range(self._header.count)) if self._bands is None else self._bands

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """Descriptions of the selected bands, None for a band without one."""
        return tuple(self._header.descriptions[band] for band in self.bands)

    @property
    def scales(self) -> tuple[float, ...]:
        """Scale tags of the selected bands; pixels are returned without them."""
        return tuple(self._header.scales[band] for band in self.bands)

    @property
    def offsets(self) -> tuple[float, ...]:
        """Offset tags of the selected bands; pixels are returned without them."""
        return tuple(self._header.offsets[band] for band in self.bands)

    @property
    def count(self) -> int:
        """Number of selected bands."""
        return self._header.count if self._bands is None else len(self._bands)

    def read(self, bands: Sequence[int] | None = None, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Reads pixels; arguments narrow the selection as in [`~GeoTiffRaster.select`].

        Returns:
            `np.ndarray` of shape `(bands, height, width)`: in the file's own data type and units.

        Raises:
            GeoTiffError: the pixels cannot be decoded, or would take more than `MAX_READ_BYTES`.
        """
        target = self.select(bands, window)
        needed = math.prod(target.shape) * np.dtype(target.dtype).itemsize
        if needed > MAX_READ_BYTES:
            raise GeoTiffError(
                f"{self.name}: reading {target.shape} pixels of {self.dtype} would take {needed:,} bytes, more than "
                f"the {MAX_READ_BYTES:,} allowed in one read. Read it window by window (`window=`), or raise "
                "`prithvi_hf.rasters.geotiff_raster.MAX_READ_BYTES`."
            )
        indexes = [band + 1 for band in target.bands]
        return self._decode(lambda dataset: dataset.read(indexes, window=_rasterio_window(target._window)))

    def read_nodata_mask(self, window: tuple[int, int, int, int] | None = None) -> np.ndarray | None:
        """Reads where the file's own mask band, or else its alpha band, says that there is no data.

        The nodata tag is not part of it. An alpha band counts only where it is not data: writers mark the fourth
        band of 8-bit files as alpha, so a band that is described, or was selected by index, is an ordinary band.

        Returns:
            `np.ndarray` of shape `(height, width)`, bool, True for no data; None when the file has no such band.
        """
        header, target = self._header, self.select(window=window)
        place = _rasterio_window(target._window)
        if header.has_mask:
            return self._decode(lambda dataset: dataset.read_masks(1, window=place)) == 0
        if header.alpha_band is None or header.alpha_band in (self._bands or ()):
            return None
        return self._decode(lambda dataset: dataset.read(header.alpha_band + 1, window=place)) == 0

    def read_tag(self, name: str) -> str | None:
        """Reads one metadata item of the file as a whole.

        Args:
            name (`str`): such as "PROCESSING_BASELINE".

        Returns:
            `str`: its text, None where there is no such item.
        """
        with self._open() as dataset:
            return dataset.get_tag_item(name)

    def _check(self) -> None:
        """Refuses what is not a complete TIFF before GDAL sees it."""
        _check_complete(self.name, self.path, self.content, self._allow_missing_blocks)

    def _open(self) -> AbstractContextManager[DatasetReader]:
        """Opens the file; what is opened otherwise has the same rest."""
        return _open(self.name, self.path, self.content)

    def _decode(self, read: Any) -> np.ndarray:
        with self._open() as dataset:
            self._check_unchanged(dataset)
            try:
                return read(dataset)
            except RasterioError as error:
                damage = GeoTiffDecodeError(
                    f"{self.name}: its header promises {self._header.count} bands of {self._header.height} x "
                    f"{self._header.width} pixels, but they cannot be decoded ({_cause(error)}): the file is "
                    "damaged. Copy or download it again."
                )
                damage.file = self.name
                raise damage from error

    def _check_unchanged(self, dataset: DatasetReader) -> None:
        """Refuses a file that was replaced by another one since its header was read."""
        header = self._header
        expected = (header.count, header.height, header.width, header.dtype)
        found = (dataset.count, dataset.height, dataset.width, dataset.dtypes[0])
        if found != expected:
            raise GeoTiffError(
                f"{self.name}: expected {_pixels_text(*expected)} as when it was opened, found "
                f"{_pixels_text(*found)}: the file changed while it was read. Run again when nothing writes to it."
            )

    def _file_bytes(self) -> int:
        return os.path.getsize(self.path) if self.content is None else len(self.content)


def _local_path(name: str) -> str:
    """Returns the absolute path of a regular local file; GDAL then cannot take it for one of its own protocols."""
    if name.startswith("/vsi") or "://" in name or "::" in name:
        raise GeoTiffError(
            f"{name}: expected a local GeoTIFF file, found a remote or virtual path. Download or extract the file "
            "first, or pass its bytes."
        )
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.exists(path):
        raise GeoTiffNotFoundError(_absent_message(name, path))
    if not os.path.isfile(path):
        raise GeoTiffError(f"{name}: expected a regular GeoTIFF file, found a directory or device. Name one file.")
    return path


def _absent_message(name: str, path: str) -> str:
    if not os.path.islink(path):
        return f"{name}: expected a GeoTIFF file, found nothing there. Check the path, or restore the file."
    return (
        f"{name}: expected a GeoTIFF file, found a link to {os.readlink(path)}, which cannot be reached. Restore that "
        "file, or remove or renew the link."
    )


def _pixels_text(count: int, height: int, width: int, dtype: str) -> str:
    return f"{count} bands of {height} x {width} pixels of {dtype}"


def _check_complete(name: str, path: str | None, content: bytes | None, allow_missing_blocks: bool) -> None:
    """Refuses what is not a complete TIFF before GDAL sees it."""
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        file_bytes = file.seek(0, os.SEEK_END) - file.seek(0)
        fault = find_tiff_fault(file, file_bytes)
        if fault is not None and allow_missing_blocks:
            file.seek(0)
            graver = find_tiff_fault(file, file_bytes, only_directories=True)
            if graver is None:
                logger.warning(f"{name}: found {fault}; these count as blocks that cannot be read.")
            fault = graver
    if fault is None:
        return
    truncated = "beyond its end" in fault
    remedy = "It is truncated: copy" if truncated else "Convert it with `gdal_translate -of GTiff`, or copy"
    raise GeoTiffError(f"{name}: expected a GeoTIFF, found {fault}. {remedy} or download it again.")


@contextmanager
def _open(name: str, path: str | None, content: bytes | None) -> Iterator[DatasetReader]:
    """Opens a checked file or bytes with the GTiff driver alone, and closes it on leaving."""
    with rasterio.Env(session=DummySession(), **_GDAL_OPTIONS), ExitStack() as stack:
        try:
            target = path if content is None else stack.enter_context(MemoryFile(content)).name
            dataset = stack.enter_context(DatasetReader(target, driver="GTiff"))
        except RasterioError as error:
            if path is not None and not os.path.exists(path):  # since its header was read
                raise GeoTiffNotFoundError(_absent_message(name, path)) from error
            raise GeoTiffError(
                f"{name}: expected a GeoTIFF, found a TIFF that cannot be opened ({_cause(error)}): the file is "
                "damaged. Copy or download it again."
            ) from error
        yield dataset


def _read_header(dataset: DatasetReader, name: str, file_bytes: int) -> _Header:
    """Reads and checks what is needed later, so that the file need not stay open."""
    dtype = dataset.dtypes[0]
    if dtype.startswith("complex"):
        raise GeoTiffError(
            f"{name}: expected integer or float pixels, found {dtype}. Write its parts as separate bands."
        )
    _check_blocks(dataset, name, file_bytes)
    flags, interpretations = dataset.mask_flag_enums[0], dataset.colorinterp
    alpha = interpretations.index(ColorInterp.alpha) if ColorInterp.alpha in interpretations else None
    return _Header(
        count=dataset.count,
        height=dataset.height,
        width=dataset.width,
        dtype=dtype,
        crs=dataset.crs,
        transform=dataset.transform,
        nodata=dataset.nodata,
        descriptions=tuple(dataset.descriptions),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        has_mask=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        alpha_band=None if alpha is None or dataset.descriptions[alpha] else alpha,
        has_ground_control_points=bool(dataset.gcps[0]),
        block_shape=max(dataset.block_shapes, key=math.prod),
    )


def _check_blocks(dataset: DatasetReader, name: str, file_bytes: int) -> None:
    """Refuses a header whose blocks would take far more memory than the file can hold, or whose bands far too long."""
    if dataset.count > MAX_BANDS:
        raise GeoTiffError(
            f"{name}: expected at most {MAX_BANDS:,} bands, found {dataset.count:,}. Write the bands that are needed "
            "to a file of their own, e.g. `gdal_translate -b 1 -b 2`, or raise "
            "prithvi_hf.rasters.geotiff_raster.MAX_BANDS."
        )
    bands_in_block = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    height, width = max(dataset.block_shapes, key=math.prod)
    block_bytes = height * width * bands_in_block * np.dtype(dataset.dtypes[0]).itemsize
    if block_bytes > max(MAX_UNBACKED_BLOCK_BYTES, MAX_BLOCK_RATIO * file_bytes) or block_bytes > MAX_READ_BYTES:
        raise GeoTiffError(
            f"{name}: its header asks for blocks of {height} x {width} x {bands_in_block} pixels ({block_bytes:,} "
            f"bytes each) in a file of {file_bytes:,} bytes, which is not credible. Rewrite it with small blocks, "
            "e.g. `gdal_translate -co TILED=YES`."
        )


def _cause(error: BaseException) -> str:
    """The innermost message of an error: rasterio's own often says only that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _rasterio_window(window: tuple[int, int, int, int]) -> Window:
    row, column, height, width = window
    return Window(col_off=column, row_off=row, width=width, height=height)
