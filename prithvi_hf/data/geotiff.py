# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""GeoTIFF as a feature of the `datasets` library.

Importing this module registers [`GeoTiff`]; each process that reads stored datasets with such columns needs that, so
`import prithvi_hf` does it. rasterio, which registration does not need, is loaded with the first raster.
"""

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

import pyarrow as pa
from datasets import DownloadConfig, Value
from datasets.features.features import register_feature
from datasets.table import array_cast
from datasets.utils.file_utils import is_local_path, is_remote_url, xopen


if TYPE_CHECKING:
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


class StoredValue(TypedDict):
    """A GeoTIFF as Arrow holds it."""

    path: str | None
    bytes: "bytes | None"


@dataclass
class GeoTiff:
    """`datasets` feature of a GeoTIFF file, decoded to a [`GeoTiffRaster`].

    Accepted values:

    - `str` or `pathlib.Path`: path of a GeoTIFF file;
    - `bytes` or `bytearray`: content of a GeoTIFF file;
    - `dict` with `path` and `bytes`, either of which may be None;
    - [`GeoTiffRaster`].

    Decoding reads the header only. In datasets that `datasets` streams, remote paths (`hf://`, `https://`) are fetched
    whole by `datasets` itself and read from memory. Read pixels in `Dataset.with_transform`, not in `map`: there
    `datasets` rewrites a decoded column as nested lists of its pixels.

    Args:
        decode (`bool`, *optional*, defaults to `True`): False gives the stored dict of path and bytes.
        bands (`list[int]`, *optional*): 0-based indices that decoded rasters are narrowed to.
        band_names (`list[str]`, *optional*): names of the file's bands in file order. These three describe the column
            for people and programs, as the names of a `ClassLabel` do: they are saved with the features, change
            nothing in decoding, and do not keep two columns from being concatenated.
        class_names (`list[str]`, *optional*): names of a mask's classes, in the order of a model's labels.
        class_colors (`list[str]`, *optional*): their colours, "#rrggbb".

    Example:
    ```python
    >>> dataset = Dataset.from_dict({"image": ["chip.tif"]}).cast_column("image", GeoTiff())
    >>> dataset[0]["image"].read(bands=[1, 2, 3]).shape
    (3, 512, 512)
    ```
    """

    decode: bool = True
    bands: list[int] | None = None
    id: str | None = field(default=None, repr=False)
    band_names: list[str] | None = field(default=None, compare=False)
    class_names: list[str] | None = field(default=None, compare=False)
    class_colors: list[str] | None = field(default=None, compare=False)

    dtype: ClassVar[str] = "prithvi_hf.rasters.geotiff_raster.GeoTiffRaster"
    pa_type: ClassVar[pa.DataType] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    _type: str = field(default="GeoTiff", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """Return the Arrow type in which values are stored."""
        return self.pa_type

    def encode_example(
        self, value: "str | os.PathLike | bytes | bytearray | StoredValue | GeoTiffRaster"
    ) -> StoredValue:
        """Return `{"path", "bytes"}` of an accepted value; a local file is stored by its path.

        Raises:
            ValueError: another kind of value, a dict with neither, or a raster narrowed to a part of its file.
        """
        if isinstance(value, str):
            return {"path": value, "bytes": None}
        if isinstance(value, os.PathLike):
            return {"path": str(Path(value).absolute()), "bytes": None}
        if isinstance(value, bytes | bytearray):
            return {"path": None, "bytes": bytes(value)}
        if isinstance(value, dict) and (value.get("path") is not None or value.get("bytes") is not None):
            path = value.get("path")
            is_file = path is not None and os.path.isfile(path)
            return {"path": path, "bytes": None if is_file else value.get("bytes")}
        from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster

        if not isinstance(value, GeoTiffRaster):
            found = type(value).__name__ + (f" with keys {sorted(value)}" if isinstance(value, dict) else "")
            raise ValueError(
                "A GeoTiff value is expected to be a path, bytes, a GeoTiffRaster or a dict with 'path' or 'bytes', "
                f"found {found}. To store an array, write it with `write_geotiff` and give the path."
            )
        header = value._header
        own_bands = tuple(range(header.count)) if self.bands is None else tuple(self.bands)
        if value.bands != own_bands or value.window != (0, 0, header.height, header.width):
            raise ValueError(
                f"{value.name}: a raster narrowed to bands {value.bands} and window {value.window} cannot be stored "
                "as its file. Write the part with `write_geotiff` and give that path."
            )
        name = None if value.name == "<bytes>" else os.path.basename(value.name)
        return {"path": value.path or name, "bytes": value.content}

    def decode_example(
        self, value: "StoredValue | str | GeoTiffRaster", token_per_repo_id: dict[str, str | bool | None] | None = None
    ) -> "GeoTiffRaster":
        """Return the raster of a stored value, a dict or a path; what is decoded already is returned as it is."""
        if isinstance(value, str):
            value = {"path": value, "bytes": None}
        if not isinstance(value, dict):
            return value
        path, content = value.get("path"), value.get("bytes")
        if content is None and path is not None and is_remote_url(path):
            content = _fetch(path, token_per_repo_id)
        from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster

        raster = GeoTiffRaster(path, content)
        return raster if self.bands is None else raster.select(self.bands)

    def embed_storage(
        self,
        storage: pa.StructArray,
        token_per_repo_id: dict[str, str | bool | None] | None = None,
        local_files: bool = True,
        remote_files: bool = True,
    ) -> pa.StructArray:
        """Replace paths by the bytes of their files and keep base names, so that a shard needs no other file.

        `datasets` calls this when it saves to Parquet and pushes to the Hub.
        """
        paths, contents = [], []
        for row in storage.to_pylist():
            path, content = (None, None) if row is None else (row["path"], row["bytes"])
            if path is not None and ((local_files and is_local_path(path)) or (remote_files and is_remote_url(path))):
                content = _fetch(path, token_per_repo_id) if content is None else content
                path = os.path.basename(path)
            paths.append(path)
            contents.append(content)
        arrays = [pa.array(contents, type=pa.binary()), pa.array(paths, type=pa.string())]
        return array_cast(pa.StructArray.from_arrays(arrays, ["bytes", "path"], mask=storage.is_null()), self.pa_type)

    def cast_storage(self, storage: pa.Array) -> pa.StructArray:
        """Convert an Arrow array of paths, of bytes, or of structs of them to the storage type.

        Raises:
            TypeError: an array of another type.
        """
        kind, nulls = storage.type, pa.nulls(len(storage))
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            parts = {"path": storage}
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            parts = {"bytes": storage}
        elif pa.types.is_struct(kind):
            parts = {name: storage.field(name) for name in ("bytes", "path") if kind.get_field_index(name) >= 0}
        elif pa.types.is_null(kind):
            parts = {}
        else:
            raise TypeError(
                f"A GeoTiff column is made of paths (string), bytes (binary) or structs of them, found {kind}. A "
                "`map` that reads a decoded raster turns its column into lists of pixels: use `with_transform`, or "
                "`cast_column(name, GeoTiff(decode=False))` before the `map`."
            )
        arrays = [parts.get("bytes", nulls).cast(pa.binary()), parts.get("path", nulls).cast(pa.string())]
        return pa.StructArray.from_arrays(arrays, ["bytes", "path"], mask=storage.is_null())

    def flatten(self) -> "GeoTiff | dict[str, Value]":
        """Return the feature itself while it decodes, else the features of its two parts."""
        return self if self.decode else {"bytes": Value("binary"), "path": Value("string")}


def _fetch(path: str, token_per_repo_id: dict[str, str | bool | None] | None) -> bytes:
    """Read a whole file, local or remote, the way `datasets` does for its own file features."""
    repository = "/".join(path.removeprefix("hf://datasets/").split("@")[0].split("/")[:2])
    token = (token_per_repo_id or {}).get(repository) if path.startswith("hf://datasets/") else None
    try:
        with xopen(path, "rb", download_config=DownloadConfig(token=token)) as file:
            return file.read()
    except OSError as error:
        from prithvi_hf.rasters.geotiff_raster import GeoTiffError

        raise GeoTiffError(
            f"{path}: expected a readable GeoTIFF file, found: {error}. Check that it exists."
        ) from error


with warnings.catch_warnings():
    # `datasets` calls its door for features of other packages experimental, each time it is used.
    warnings.simplefilter("ignore")
    register_feature(GeoTiff, "GeoTiff")
