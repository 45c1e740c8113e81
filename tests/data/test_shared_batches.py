"""Batches that cross from workers in memory that is used again."""

import copy
import gc
import os
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from prithvi_hf.data import collate_chips
from prithvi_hf.data.shared_batches import (
    SharedBatch,
    _received,
    empty_batch,
    pack_batch,
)


LAYOUT = {"pixel_values": ((2, 3, 1, 8, 8), torch.float32), "labels": ((2, 8, 8), torch.int64)}


class Numbers(torch.utils.data.Dataset):
    """Examples that hold their own number, written to a batch in its place as training crops are."""

    def __init__(self, count, fail_at=None):
        self.count, self.fail_at = count, fail_at

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        if self.fail_at in indices:
            raise ValueError("a chip that cannot be read")
        layout = {name: ((len(indices), *shape[1:]), dtype) for name, (shape, dtype) in LAYOUT.items()}
        batch = empty_batch(layout)
        for place, index in enumerate(indices):
            batch["pixel_values"][place] = index
            batch["labels"][place] = -index
        parts = zip(*(tensor.unbind() for tensor in batch.values()), strict=True)
        return [dict(zip(batch, part, strict=True)) for part in parts]


def loader(dataset, **options):
    return DataLoader(dataset, batch_size=2, collate_fn=collate_chips, **{"num_workers": 2, **options})


def check(batch, number):
    assert type(batch) is dict
    for place in range(len(batch["labels"])):
        assert (batch["pixel_values"][place] == 2 * number + place).all()
        assert (batch["labels"][place] == -2 * number - place).all()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_memory_is_used_again_and_never_under_a_batch_in_use(method):
    addresses, held = set(), []
    for number, batch in enumerate(loader(Numbers(201), multiprocessing_context=method)):
        check(batch, number)
        addresses.add(batch["pixel_values"].data_ptr())
        held = [*held[-2:], (batch["labels"], number)]  # one tensor of a batch keeps the slot of the whole
        for labels, own in held:
            assert (labels[0] == -2 * own).all()
    assert len(addresses) <= 16


def test_batches_that_are_kept_keep_their_values():
    kept = list(loader(Numbers(80)))
    for number, batch in enumerate(kept):
        check(batch, number)


def test_a_batch_may_be_written_to_and_outlives_its_worker():
    batches = loader(Numbers(8), num_workers=1)
    first = next(iter(batches))
    gc.collect()
    first["pixel_values"] += 1
    assert (first["pixel_values"][1] == 2).all()


def test_memory_of_workers_that_are_gone_is_let_go():
    for _ in range(4):
        for _ in loader(Numbers(8)):
            pass
    gc.collect()
    assert len(_received) <= 4  # the last workers', and those that still ran when they began


def test_an_error_in_a_worker_arrives():
    with pytest.raises(ValueError, match="cannot be read"):
        list(loader(Numbers(20, fail_at=7)))


def test_other_ways_to_stack_get_copies():
    """A collate function that knows nothing of slots: they are freed when its own tensors are made."""
    stacked = DataLoader(Numbers(100), batch_size=2, num_workers=1)
    for number, batch in enumerate(stacked):
        check(batch, number)


def test_parts_of_a_batch_are_the_batch_only_whole_and_in_order():
    rows = Numbers(9).__getitems__([3, 4, 5])
    whole = collate_chips(rows)
    assert whole["labels"].data_ptr() == rows[0]["labels"].data_ptr()
    for some in ([rows[1], rows[0], rows[2]], rows[:2], [rows[0], rows[0], rows[2]]):
        batch = collate_chips(some)
        assert batch["labels"].data_ptr() != rows[0]["labels"].data_ptr()
        assert torch.equal(batch["labels"], torch.stack([row["labels"] for row in some]))


def test_outside_workers_nothing_is_shared():
    batch = pack_batch(empty_batch(LAYOUT))
    assert type(batch) is dict
    assert not batch["labels"].is_shared()


def look(batch):
    """In a worker: a packed batch is copied and pickled as the dict that it is."""
    packed = collate_chips(batch)
    assert isinstance(packed, SharedBatch) or os.environ.get("PLAIN")
    copied = copy.deepcopy(dict(packed))
    again = pickle.loads(pickle.dumps(dict(packed)))
    assert all(torch.equal(copied[key], again[key]) for key in copied)
    return packed


def test_packed_in_a_worker():
    for number, batch in enumerate(DataLoader(Numbers(6), batch_size=2, num_workers=1, collate_fn=look)):
        check(batch, number)
