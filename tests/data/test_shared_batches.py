"""Batches that cross from workers in memory that is used again."""

import copy
import gc
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from prithvi_hf.data import collate_chips
from prithvi_hf.data.shared_batches import BatchRows, _received, _SlotBatch, make_batch


SHAPES = {"pixel_values": ((2, 3, 1, 8, 8), torch.float32), "labels": ((2, 8, 8), torch.int64)}


class Numbers(torch.utils.data.Dataset):
    """Examples that hold their own number, written to a batch in its place as training crops are."""

    def __init__(self, count, fail_at=None):
        self.count, self.fail_at = count, fail_at

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        if self.fail_at in indices:
            raise ValueError("a chip that cannot be read")
        batch = make_batch({name: ((len(indices), *shape[1:]), dtype) for name, (shape, dtype) in SHAPES.items()})
        for place, index in enumerate(indices):
            batch["pixel_values"][place] = index
            batch["labels"][place] = -index
        return BatchRows(batch, len(indices))


def loader(dataset, **options):
    return DataLoader(dataset, batch_size=2, **{"num_workers": 2, "collate_fn": collate_chips, **options})


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
    for number, batch in enumerate(list(loader(Numbers(80)))):
        check(batch, number)


def test_a_batch_may_be_written_to_and_outlives_its_worker():
    first = next(iter(loader(Numbers(8), num_workers=1)))
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


def stack_plainly(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def stack_single_rows(rows):
    return collate_chips(list(rows))  # of which nothing says that they are a whole batch


def take_apart(rows):
    return list(collate_chips(rows).values())


def put_something_in(rows):
    batch = collate_chips(rows)
    batch["labels"] = batch["labels"] + 0
    batch["more"] = torch.ones(2)
    return batch


@pytest.mark.parametrize("collate", [stack_plainly, stack_single_rows])
def test_other_ways_to_stack_get_the_same(collate):
    """Slots that a collate function does not hand on are freed when its own tensors are made."""
    for number, batch in enumerate(loader(Numbers(100), collate_fn=collate)):
        check(batch, number)


def test_tensors_that_are_taken_out_of_a_batch_are_right():
    for number, (values, labels) in enumerate(loader(Numbers(100), collate_fn=take_apart)):
        check({"pixel_values": values, "labels": labels}, number)


def test_a_batch_that_was_changed_arrives_as_it_is():
    for number, batch in enumerate(loader(Numbers(100), collate_fn=put_something_in)):
        assert (batch.pop("more") == 1).all()
        check(batch, number)


def test_outside_workers_nothing_is_shared():
    batch = make_batch(SHAPES)
    assert type(batch) is dict
    assert not batch["labels"].is_shared()


def look(rows):
    """In a worker: a batch in a slot is copied and pickled as the dict that it is."""
    batch = collate_chips(rows)
    assert isinstance(batch, _SlotBatch)
    copied, again = copy.deepcopy(dict(batch)), pickle.loads(pickle.dumps(dict(batch)))
    assert all(torch.equal(copied[key], again[key]) for key in copied)
    return batch


def test_copies_in_a_worker():
    for number, batch in enumerate(loader(Numbers(6), num_workers=1, collate_fn=look)):
        check(batch, number)
