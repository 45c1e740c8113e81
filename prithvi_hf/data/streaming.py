# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips that are read from their shards as they are needed, for sets that are larger than the disk.

What is read when is planned from numbers alone: which chips a batch holds follows from the seed, the epoch, and the
number of processes and workers. So every chip comes once in an epoch, all processes make the same number of steps, and
a run that is resumed in the middle of an epoch goes on with the very next batch without reading those before it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, DownloadConfig, Features, StreamingDownloadManager

from prithvi_hf.cores import CORES
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.load import is_parquet, make_builder
from prithvi_hf.data.transforms import BatchRows, SegmentationTransform, TrainingCrops


_FOOTERS_AT_ONCE = 4 * CORES  # reading a footer is waiting, above all from the Hub


class StreamedChipError(OSError):
    """A chip that cannot be read when its turn comes; the message names it, with what is wrong and the remedy."""


def explain_bad_chip(error: Exception) -> StreamedChipError:
    """Say what to do about an error that came while chips were read, which names the file."""
    return StreamedChipError(
        f"Expected every chip of the stream to be readable, found: {str(error).strip().rstrip('.')}. Write its shard "
        "or file again, or leave it out of the dataset; --check sample finds many such chips before the run"
    )


class StreamedChips(torch.utils.data.Dataset):
    """Chips in Parquet shards, local or remote, whose files are embedded; a row group is read when one is needed.

    To be used like a `datasets.Dataset`; nothing is written to disk. Chips that are asked for in the order of
    [`plan_batches`] cost one read of each row group.

    Args:
        groups (`list[tuple[str, int]]`): address of the shard, and number in it, of each row group.
        group_sizes (`np.ndarray`): chips in each of them.
        features (`Features`): columns of the shards.
        held (`int`): chips whose row groups are kept in memory.
        transform (*optional*): turns a dict of columns into one of examples.
    """

    def __init__(
        self,
        groups: Sequence[tuple[str, int]],
        group_sizes: np.ndarray,
        features: Features,
        held: int = 1000,
        transform: Callable[[dict[str, list[Any]]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.groups, self.group_sizes, self.features, self.held = list(groups), group_sizes, features, held
        self.transform = transform
        self._ends = np.cumsum(group_sizes)
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": threading.Lock()}

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.features)

    def with_transform(self, transform: Callable[[dict[str, list[Any]]], Mapping[str, Any]] | None) -> "StreamedChips":
        """The same chips with another transform, as `datasets.Dataset.with_transform`."""
        return StreamedChips(self.groups, self.group_sizes, self.features, self.held, transform)

    def with_format(self, type: None = None) -> "StreamedChips":
        """The same chips without a transform, as `datasets.Dataset.with_format(None)`."""
        return self.with_transform(type)

    def select_columns(self, name: str) -> "StreamedChips":
        """The same chips: a column that is asked for by its name is read by itself anyway."""
        return self

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | str | Sequence[int]) -> Any:
        """A row, of several rows the columns, or a column, as of a `datasets.Dataset`."""
        if isinstance(index, str):
            return [value for url, group in self.groups for value in _read(url, group, [index])[index].to_pylist()]
        if isinstance(index, int):
            return self.__getitems__([index])[0]
        rows = [self._read_row(int(place)) for place in index]
        columns = {name: [row[name] for row in rows] for name in self.features}
        if self.transform is None:
            return columns
        try:
            return self.transform(columns)
        except (ValueError, OSError) as error:
            raise explain_bad_chip(error) from error

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of a batch, which torch's DataLoader asks for together."""
        rows = self[indices]
        return [{name: values[i] for name, values in rows.items()} for i in range(len(indices))]

    def _read_row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Expected a chip of {len(self)}, found {index}.")
        group = int(np.searchsorted(self._ends, index, side="right"))
        with self._lock:  # a check of the chips reads in threads
            if group not in self._tables:
                self._tables[group] = _read(*self.groups[group])
                # The row group that is being left may be asked for once more by the batch that leaves it.
                while sum(map(len, self._tables.values())) - len(self._tables[group]) > max(
                    self.held, int(self.group_sizes.max())
                ):
                    self._tables.popitem(last=False)
            table = self._tables[group]
        row = table.slice(index - int(self._ends[group] - self.group_sizes[group]), 1).to_pylist()[0]
        return self.features.decode_example(row)

    def __repr__(self) -> str:
        return f"StreamedChips({len(self)} chips in {len(self.groups)} row groups)"


def open_streams(
    name: str, data_dir: str | None = None, held: int = 1000, **options: Any
) -> dict[str, StreamedChips | Dataset]:
    """Open the splits of a dataset without downloading or converting its chips.

    Args:
        name: "parquet" for a folder of Parquet shards, "owner/name" for such a dataset on the Hub, or the name of a
            dataset of this package, whose files are then read one by one, from its public place without `data_dir`.
        data_dir: folder of the dataset.
        held: chips that are held in memory, of Parquet shards.
        options: of the builder.

    Returns:
        The splits by name. Files give a `Dataset` of their paths or addresses.

    Raises:
        ValueError: shards without the columns `image` and `mask` or `label`, or whose chips are not GeoTIFFs.
    """
    if not is_parquet(name):
        builder = make_builder(name, data_dir, **options)
        if data_dir is not None:
            builder.download_and_prepare()
            return dict(builder.as_dataset())
        manager = StreamingDownloadManager(
            base_path=builder.base_path,
            download_config=DownloadConfig(token=builder.token, storage_options=builder.storage_options),
            dataset_name=builder.dataset_name,
        )
        features = builder.info.features
        parts = builder._split_generators(manager)
        return {str(part.name): Dataset.from_list(part.gen_kwargs["rows"], features=features) for part in parts}
    shards = datasets.load_dataset_builder(name, data_dir=data_dir, **options).config.data_files
    return {str(split): _open_shards(list(map(str, urls)), held, str(split)) for split, urls in shards.items()}


def _open_shards(urls: Sequence[str], held: int, split_name: str) -> StreamedChips:
    """Read the footers of a split's shards."""

    def read_footer(url: str) -> tuple[list[int], pa.Schema]:
        with fsspec.open(url, "rb") as file:
            shard = pq.ParquetFile(file)
            sizes = [shard.metadata.row_group(group).num_rows for group in range(shard.num_row_groups)]
            return sizes, shard.schema_arrow

    try:
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            footers = list(pool.map(read_footer, urls))
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"Split {split_name}: expected Parquet shards, found: {error}. Download or write them again."
        ) from error
    features = Features.from_arrow_schema(footers[0][1])
    images = features.get("image")
    if not isinstance(getattr(images, "feature", images), GeoTiff) or not {"mask", "label"} & set(features):
        raise ValueError(
            f"Split {split_name}: expected shards with a column image of GeoTIFFs and a column mask or label, found "
            f"{', '.join(features)} in {urls[0]}. Write them by `push_to_hub`, or `to_parquet`, of a dataset of this "
            "package."
        )
    groups = [(url, group) for url, (sizes, _) in zip(urls, footers, strict=True) for group in range(len(sizes))]
    return StreamedChips(
        groups, np.array([size for sizes, _ in footers for size in sizes], dtype=np.int64), features, held
    )


def _read(url: str, group: int, columns: list[str] | None = None) -> pa.Table:
    with fsspec.open(url, "rb") as file:
        return pq.ParquetFile(file).read_row_group(group, columns=columns)


class StreamedCrops(TrainingCrops):
    """Training crops of streamed chips, which say by [`plan`] in which batches they are to be read.

    Args:
        chips (`StreamedChips` or `datasets.Dataset`): the chips.
        transform (`SegmentationTransform`): one that draws crops.
        seed (`int`): at least 0; also of the order of the chips.
        shuffle_buffer (`int`): chips among which each worker draws the next one.
        give_index (`bool`, *optional*, defaults to `False`): as of [`TrainingCrops`].
    """

    def __init__(
        self, chips: Any, transform: SegmentationTransform, seed: int, shuffle_buffer: int, give_index: bool = False
    ) -> None:
        super().__init__(chips, transform, seed, give_index=give_index)
        self.shuffle_buffer = shuffle_buffer
        # Of files each can be read by itself.
        self.group_sizes: np.ndarray = getattr(chips, "group_sizes", np.ones(len(chips), dtype=np.int64))

    def __getitems__(self, indices: Sequence[int]) -> BatchRows:
        """Examples of a batch, as of [`TrainingCrops`].

        Raises:
            StreamedChipError: a chip of the batch cannot be read.
        """
        try:
            return super().__getitems__(indices)
        except (ValueError, OSError) as error:
            raise explain_bad_chip(error) from error

    def plan(
        self, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0, drop_last: bool = False
    ) -> "PlannedBatches":
        """Plan the batches of this process, for the `batch_sampler` of a DataLoader."""
        return PlannedBatches(self, batch_size, rank, world_size, num_workers, drop_last)


class PlannedBatches(torch.utils.data.Sampler[list[int]]):
    """The batches of one process in the epoch that its crops are in; see [`plan_batches`]."""

    def __init__(
        self, crops: StreamedCrops, batch_size: int, rank: int, world_size: int, num_workers: int, drop_last: bool
    ) -> None:
        self.crops, self.batch_size, self.rank, self.world_size = crops, batch_size, rank, world_size
        self.num_workers, self.drop_last = num_workers, drop_last
        self._length = len(self._plan(epoch=0))

    def _plan(self, epoch: int) -> list[np.ndarray]:
        crops = self.crops
        return plan_batches(
            *(crops.group_sizes, self.batch_size, crops.seed, epoch, crops.shuffle_buffer),
            *(self.rank, self.world_size, self.num_workers, self.drop_last),
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._plan(self.crops.epoch))


def plan_batches(
    group_sizes: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle_buffer: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    drop_last: bool = False,
) -> list[np.ndarray]:
    """Plan the batches of one process in one epoch.

    The row groups come in an order that is drawn anew for each epoch, and are divided evenly among the workers of all
    processes, to the chip. Each worker mixes its chips within stretches of `shuffle_buffer` and makes as many batches
    as any other: where chips remain, batches are smaller by one, or the plan is one batch longer, and none is left out
    or comes twice. Batches of the process's workers take turns, as a DataLoader hands them out.

    Args:
        group_sizes: chips of each row group.
        batch_size: chips in a batch; one more where there are otherwise not enough for each step.
        seed: at least 0.
        epoch: from 0.
        shuffle_buffer: chips.
        rank: this process.
        world_size: number of processes.
        num_workers: of the DataLoader of each.
        drop_last: leave the chips out, others in each epoch, that do not fill a batch.

    Returns:
        The indices of the chips of each batch.

    Raises:
        ValueError: fewer chips than processes.
    """
    total = int(group_sizes.sum())
    if total < world_size:
        raise ValueError(
            f"Expected at least one training chip for each of {world_size} processes, found {total}. Start fewer."
        )
    generator, starts = np.random.default_rng((seed, epoch)), np.cumsum(group_sizes) - group_sizes
    groups = generator.permutation(len(group_sizes))
    sizes = group_sizes[groups]
    order = np.arange(total) + np.repeat(starts[groups] - (np.cumsum(sizes) - sizes), sizes)
    workers = max(1, min(num_workers, total // world_size))
    parts = workers * world_size
    smallest, largest = total // parts, -(-total // parts)
    count = smallest // batch_size if drop_last else min(-(-largest // batch_size), smallest)
    plans = []
    for part in range(rank * workers, (rank + 1) * workers):
        chips = order[part * total // parts : (part + 1) * total // parts]
        mixer = np.random.default_rng((seed, epoch, part + 1))
        for start in range(0, len(chips), shuffle_buffer):
            mixer.shuffle(chips[start : start + shuffle_buffer])
        plans.append(np.array_split(chips[: count * batch_size] if drop_last else chips, max(count, 1))[:count])
    return [batch for turn in zip(*plans, strict=True) for batch in turn]
