# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of chips: one vector for each, in a Parquet file that is also a GeoParquet file of their centres."""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, IterableDataset, List, Value

from prithvi_hf.data.chips import Chip, collect_results, find_coordinates, read_chips
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviModel
from prithvi_hf.models.prithvi.pixel_values_prithvi import scale_and_normalize
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.outputs.cog import check_output_path, complete_or_absent
from prithvi_hf.rasters.opening import parse_granule_name
from prithvi_hf.rasters.raster import find_center
from prithvi_hf.scenes.embed_scene import (
    check_choice,
    check_layer,
    count_patches,
    encode_patches,
    find_patch_size,
    get_encoder,
    mark_patches,
)


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviPreTrainedModel

POOLINGS = ("mean", "cls")
_ROWS_IN_GROUP = 1024
_GEOPARQUET_VERSION = "1.1.0"


def embed_chips(
    model: "PrithviPreTrainedModel",
    image_processor: "PrithviImageProcessor",
    chips: Dataset | IterableDataset | Mapping[str, Dataset | IterableDataset] | Sequence[Any],
    output: str | os.PathLike,
    *,
    layer: int = -1,
    pooling: str = "mean",
    batch_size: int = 8,
    device: str | torch.device | None = None,
    overwrite: bool = True,
    show_progress: bool = True,
) -> int:
    """Write one embedding for each chip, a batch of them in memory at a time.

    Columns of the file: `id`, `dates`, a list, `longitude` and `latitude` of the centre in degrees, `split` (where
    there are several), `embedding`, a list of `hidden_size` float32, and `geometry`, the centre as a point
    for GeoParquet. What is not known is null, and a model that takes dates or places does without it.

    Args:
        model: A model with an encoder: a backbone, a pretraining model, or a fine-tuned one, whose neck and head are
            not used. In evaluation mode meanwhile.
        image_processor: Its image processor.
        chips: A dataset, streamed or not, with the columns `image` and, where there are such, `id`, `date` or `dates`;
            several by the names of their splits, as `load_dataset` gives them; or a list of GeoTIFFs, each a path or,
            for several dates, a list of paths. Each chip is encoded as a whole, whatever its size.
        output: The Parquet file to write. It is there once it is complete.
        layer: The layer of the encoder, from 0; negative ones count from the last, which comes with its layer
            normalisation.
        pooling: "mean" over the patches with data, of all dates, or "cls", the class token.
        batch_size: Chips in one forward pass, as far as they are of one size.
        device: Where to run, for example "cuda"; the model is moved there and stays. None is where it is.
        overwrite: Whether an existing output may be replaced.
        show_progress: Whether to show a progress bar.

    Returns:
        The number of chips.

    Raises:
        ValueError: An argument leaves its range, the output cannot be written, or chips cannot be used: the message
            lists them. Nothing is written then.
        OSError: Writing fails, or the disk is full.
    """
    encoder, layer = get_encoder(model), check_layer(model.config, layer)
    check_choice("pooling", pooling, POOLINGS)
    if batch_size < 1:
        raise ValueError(f"batch_size is a number of chips, at least 1, found {batch_size}.")
    inputs: list[Any] = []
    if not isinstance(chips, Dataset | IterableDataset | Mapping):
        files = [chips] if isinstance(chips, str | os.PathLike) else list(chips)
        inputs = [file for one in files for file in (one if isinstance(one, list | tuple) else [one])]
        chips = make_chip_dataset(files)
    splits = chips if isinstance(chips, Mapping) else {"chips": chips}
    check_output_path(output, inputs, overwrite, "Parquet file", (".parquet",))
    image_processor.check_config(model.config)
    if device is not None:
        encoder.to(device)  # type: ignore[arg-type]  # transformers wraps the method
    failed: list[str] = []
    with complete_or_absent(output) as part, evaluation_mode(encoder):
        file = EmbeddingFile(part, encoder, layer, pooling, batch_size)
        for name, split in splits.items():
            own = {"split": name} if isinstance(chips, Mapping) else {}

            def take(result: "dict[str, Any] | str", own: dict[str, str] = own) -> str | None:
                if isinstance(result, str):
                    failed.append(result)
                    return result
                if not failed:  # the rest is read for what else is wrong
                    file.add({**result, **own})
                return None

            read = partial(prepare_chip, image_processor, model.config.coords_encoding)
            collect_results(map(take, read_chips(split, read, name, show_progress)), name)
        file.close()
    return file.count


def make_chip_dataset(images: Sequence[Any]) -> Dataset:
    """Make a dataset of image files, each a path or the list of paths of its dates, with dates from their names."""
    paths = [[os.fspath(path) for path in (one if isinstance(one, list | tuple) else [one])] for one in images]
    if not paths:
        raise ValueError("Expected at least one chip, found none.")
    granules = [[parse_granule_name(path) for path in frames] for frames in paths]
    dates = [[None if file is None else file.date.date().isoformat() for file in files] for files in granules]
    features = Features({"id": Value("string"), "image": List(GeoTiff()), "dates": List(Value("string"))})
    names = [Path(frames[0]).stem for frames in paths]
    ids = names if len(set(names)) == len(names) else [frames[0] for frames in paths]
    return Dataset.from_dict({"id": ids, "image": paths, "dates": dates}, features=features)


def prepare_chip(image_processor: "PrithviImageProcessor", encoded: Sequence[str], chip: Chip) -> dict[str, Any]:
    """Read a chip: values (C, T, H, W), pixels without data, dates and place, and what a model takes of these."""
    image, first = chip.frames if len(chip.frames) > 1 else chip.frames[0], chip.frames[0]
    frames, missing, nodata = image_processor.read_frames(image, chip.id)
    image_processor.check_units(frames, missing, chip.id)
    values = scale_and_normalize(frames, missing, image_processor.checked_options())
    dates = chip.dates if isinstance(chip.dates, list) else [chip.dates]
    # The date of a file does not tell those of all that it stacks.
    known = dates if len(dates) == image_processor.num_frames or len(dates) > 1 else None
    coordinates = find_coordinates(image, known, image_processor, encoded)
    latitude, longitude = find_center(first.crs, first.transform, (0, 0, *first.shape[-2:]), chip.id) or (None, None)
    row = {"id": chip.id, "dates": dates, "longitude": longitude, "latitude": latitude}
    return {**row, "values": values, "nodata": nodata, "coordinates": coordinates}


class EmbeddingFile:
    """A Parquet file of embeddings in the making: chips are encoded in batches of one size, rows written in groups."""

    def __init__(self, path: Path, encoder: PrithviModel, layer: int, pooling: str, batch_size: int) -> None:
        self.count = 0
        self._path, self._encoder, self._layer, self._pooling = path, encoder, layer, pooling
        self._batch_size, self._waiting, self._rows = batch_size, list[dict[str, Any]](), list[dict[str, Any]]()
        self._writer: pq.ParquetWriter | None = None

    def add(self, chip: dict[str, Any]) -> None:
        """Take a chip of `prepare_chip`, with further columns."""
        if self._waiting and chip["values"].shape != self._waiting[0]["values"].shape:
            self._encode()
        self._waiting.append(chip)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def _encode(self) -> None:
        """Turn the waiting chips into rows."""
        config, chips = self._encoder.config, self._waiting
        pixel_values = torch.from_numpy(np.stack([chip.pop("values") for chip in chips]))
        places = [chip.pop("coordinates") for chip in chips]
        coordinates = {name: torch.from_numpy(np.stack([place[name] for place in places])) for name in places[0]}
        tokens, patches = encode_patches(self._encoder, pixel_values, coordinates, self._layer)
        if self._pooling == "mean":
            size = (pixel_values.shape[-2], pixel_values.shape[-1])
            cell = find_patch_size(config, size)
            rows, columns = count_patches(size, cell)
            marks = np.zeros((len(chips), rows, columns), dtype=bool)
            for mark, chip in zip(marks, chips, strict=True):
                mark_patches(mark, ~chip["nodata"], cell)
            weights = torch.from_numpy(marks).to(patches.device, torch.float32)
            sums = torch.einsum("btehw,bhw->be", patches.float(), weights) / patches.shape[1]
            tokens = sums / weights.sum(dim=(1, 2)).unsqueeze(1)  # NaN without any data
        embeddings = tokens.float().cpu().numpy()
        for chip, embedding in zip(chips, embeddings, strict=True):
            has_data = not chip.pop("nodata").all()
            if has_data and not np.isfinite(embedding).all():
                raise ValueError(
                    f"{chip['id']}: the model gives values that are not finite: check its weights, and the dtype that "
                    "it runs in (float32 or bfloat16 instead of float16)."
                )
            place = None if chip["longitude"] is None else (chip["longitude"], chip["latitude"])
            point = None if place is None else struct.pack("<BIdd", 1, 1, *place)  # well-known binary
            self._rows.append({**chip, "embedding": embedding if has_data else None, "geometry": point})
        self._waiting = []
        if len(self._rows) >= _ROWS_IN_GROUP:
            self._write()

    def _write(self) -> None:
        """Write the rows as one group."""
        if self._writer is None:
            types = {
                **dict.fromkeys(("id", "split"), pa.string()),
                **dict.fromkeys(("longitude", "latitude"), pa.float64()),
                "dates": pa.list_(pa.string()),
                "embedding": pa.list_(pa.float32()),
                "geometry": pa.binary(),
            }
            column = {"encoding": "WKB", "geometry_types": ["Point"]}  # longitude and latitude, WGS 84, by default
            geo = {"version": _GEOPARQUET_VERSION, "primary_column": "geometry", "columns": {"geometry": column}}
            about = {"layer": self._layer, "pooling": self._pooling, "model": self._encoder.config._name_or_path}
            schema = pa.schema([(name, types[name]) for name in self._rows[0]])
            metadata = {"geo": json.dumps(geo), "prithvi_hf": json.dumps(about)}
            self._writer = pq.ParquetWriter(self._path, schema.with_metadata(metadata), compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
        self.count += len(self._rows)
        self._rows = []

    def close(self) -> None:
        """Encode and write what is left, and finish the file."""
        if self._waiting:
            self._encode()
        if self._rows:
            self._write()
        if self._writer is not None:
            self._writer.close()
