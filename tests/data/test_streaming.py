"""Streamed chips: planned batches hold every chip once, and shards are read as they are needed."""

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets.table import embed_table_storage
from torch.utils.data import DataLoader

from prithvi_hf.data import SegmentationTransform, collate_chips, load_dataset
from prithvi_hf.data import streaming as reading
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.streaming import StreamedChips, StreamedCrops, open_streams, plan_batches
from prithvi_hf.data.transforms import TrainingCrops
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from tests.raster_factory import BANDS, write_chip, write_mask


FEATURES = Features({"image": GeoTiff(), "mask": GeoTiff(), "id": Value("string")})
COUNT = 10


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder of two shards with embedded files in row groups of two, and the dataset that they are of."""
    root = tmp_path_factory.mktemp("shards")
    for seed in range(COUNT):
        write_chip(root / f"{seed}.tif", seed=seed)
        write_mask(root / f"{seed}_mask.tif", seed=seed)
    names = [str(seed) for seed in range(COUNT)]
    rows = {"image": [f"{root}/{n}.tif" for n in names], "mask": [f"{root}/{n}_mask.tif" for n in names], "id": names}
    dataset = Dataset.from_dict(rows, features=FEATURES)
    embedded = dataset.with_format("arrow").map(embed_table_storage, batched=True, keep_in_memory=True)
    (root / "parquet").mkdir()
    for shard in range(2):
        part = embedded.shard(2, shard, contiguous=True)
        part.to_parquet(root / "parquet" / f"train-0000{shard}-of-00002.parquet", batch_size=2)
    return root / "parquet", dataset


def plan(world_size=1, num_workers=0, groups=(3, 1, 5, 4, 7), epoch=0, **more):
    options = {"batch_size": 3, "seed": 0, "shuffle_buffer": 4, **more}
    return [
        plan_batches(
            np.array(groups), epoch=epoch, rank=rank, world_size=world_size, num_workers=num_workers, **options
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_every_chip_comes_once_and_processes_make_the_same_number_of_steps(world_size, num_workers, batch_size):
    for total in range(world_size, 25):
        groups = [3] * (total // 3) + [total % 3] * (total % 3 > 0)
        ranks = plan(world_size, num_workers, groups, batch_size=batch_size)
        assert sorted(int(chip) for batches in ranks for batch in batches for chip in batch) == list(range(total))
        assert len({len(batches) for batches in ranks}) == 1
        sizes = [len(batch) for batches in ranks for batch in batches]
        assert min(sizes) >= 1
        assert max(sizes) <= batch_size + 1


def test_drop_last_leaves_batches_of_one_size():
    sizes = {len(batch) for batches in plan(2, 2, drop_last=True, batch_size=2) for batch in batches}
    assert sizes == {2}


def test_epochs_and_seeds_give_other_orders_and_the_same_ones_again():
    def order(**options):
        return np.concatenate(plan(**options)[0]).tolist()

    assert order() == order()
    assert len({tuple(order(epoch=epoch, seed=seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_a_worker_mixes_no_more_chips_than_its_buffer_holds():
    [batches] = plan(groups=[10] * 10, shuffle_buffer=10)
    order = np.concatenate(batches)
    stretches = order.reshape(10, 10)
    assert all(len(set(stretch // 10)) == 1 for stretch in stretches)  # of one row group each
    assert (np.diff(stretches) != 1).any()


def test_fewer_chips_than_processes_are_refused():
    with pytest.raises(ValueError, match="at least one training chip for each of 3 processes, found 2"):
        plan(3, groups=[2])


def test_rows_of_shards_are_those_of_the_dataset(shards):
    folder, dataset = shards
    chips = open_streams("parquet", str(folder))["train"]
    assert isinstance(chips, StreamedChips)
    assert (len(chips), chips.group_sizes.tolist()) == (COUNT, [2, 2, 1] * 2)
    for own, row in zip(chips, dataset, strict=True):
        assert own["id"] == row["id"]
        assert np.array_equal(own["image"].read(), row["image"].read())
        assert np.array_equal(own["mask"].read(), row["mask"].read())
    assert chips["id"] == dataset["id"][:]
    with pytest.raises(IndexError, match="a chip of 10, found 10"):
        chips[COUNT]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_those_of_the_files_whoever_reads_them(shards, workers):
    folder, dataset = shards
    processor = PrithviImageProcessor(bands=list(BANDS), ignore_values=[-1])
    transform = SegmentationTransform(processor, 16, "d4", train=True)
    streamed = StreamedCrops(open_streams("parquet", str(folder))["train"], transform, 0, 4)
    plain = TrainingCrops(dataset, transform, 0)
    batches = streamed.plan(3, num_workers=workers)
    for epoch in range(2):
        for crops in (streamed, plain):
            crops.set_epoch(epoch)
        expected = [plain.__getitems__(chips).batch["pixel_values"] for chips in batches]
        loaded = list(DataLoader(streamed, batch_sampler=batches, num_workers=workers, collate_fn=collate_chips))
        assert len(loaded) == len(expected) == len(batches)
        assert all((one["pixel_values"] == other).all() for one, other in zip(loaded, expected, strict=True))


def test_an_epoch_reads_each_row_group_once(shards, monkeypatch):
    chips = open_streams("parquet", str(shards[0]), held=4)["train"]
    read, plain = [], reading._read
    monkeypatch.setattr(reading, "_read", lambda url, group: read.append((url, group)) or plain(url, group))
    crops = StreamedCrops(chips, SegmentationTransform(PrithviImageProcessor(bands=list(BANDS)), 16, train=True), 0, 4)
    for batch in crops.plan(3):
        crops.chips[batch]
    assert len(read) == len(set(read)) == 6
    assert sum(map(len, crops.chips._tables.values())) <= 6
    assert len(pickle.loads(pickle.dumps(crops)).chips._tables) == 0


def test_shards_load_without_streaming_too(shards):
    folder, dataset = shards
    loaded = load_dataset("parquet", str(folder), split="train")
    assert np.array_equal(loaded[7]["image"].read(), dataset[7]["image"].read())


def test_shards_of_something_else_are_refused(tmp_path):
    Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="a column image of GeoTIFFs and a column mask or label, found text"):
        open_streams("parquet", str(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="expected Parquet shards, found"):
        open_streams("parquet", str(tmp_path))
