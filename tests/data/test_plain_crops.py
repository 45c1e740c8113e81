# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches of chips that need no look at single values are those of the files, bit for bit."""

import numpy as np
import pytest
import torch

from prithvi_hf.data import (
    SegmentationTransform,
    cache_chips,
    collate_chips,
    transforms,
)
from prithvi_hf.data.transforms import _Dice
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from tests.data.test_chip_cache import KINDS, as_dataset
from tests.raster_factory import BANDS, reflectance, write_raster


def mostly_ignored(folder, values=(1, 2, 3), ignored=0, kind="int16"):
    """Chips of which most crops hold no valid label, and one that holds none at all."""
    images, masks = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        pixels = reflectance(6, 48, seed)
        mask = np.full((1, 48, 48), ignored, dtype=kind)
        if seed:
            mask[0, 30:36, 4 * seed : 4 * seed + 6] = random.choice(values, (6, 6))
        images.append(str(write_raster(folder / f"{seed}.tif", pixels, descriptions=BANDS)))
        masks.append(str(write_raster(folder / f"{seed}_mask.tif", mask)))
    return as_dataset(images, masks), PrithviImageProcessor(
        bands=list(BANDS), num_labels=3, do_reduce_labels=True, ignore_values=[ignored] if ignored else None
    )


def far_apart(folder):
    """Masks whose own limits are fine, but between which there is a value that is no class."""
    images = [str(write_raster(folder / f"{i}.tif", reflectance(6, 48, i), descriptions=BANDS)) for i in range(2)]
    contents = [np.random.default_rng(0).integers(0, 2, (1, 48, 48)), np.full((1, 48, 48), 250)]
    masks = [str(write_raster(folder / f"{i}_mask.tif", mask.astype("uint8"))) for i, mask in enumerate(contents)]
    return as_dataset(images, masks), PrithviImageProcessor(bands=list(BANDS), num_labels=2, ignore_values=[250])


def high_fill(folder):
    """Ignored pixels of 255, for which one byte of change does not do."""
    return mostly_ignored(folder, ignored=255, kind="uint8")


def draw(source, rows, seed):
    torch.manual_seed(seed)
    return collate_chips(source.__getitems__(rows))


@pytest.fixture
def plain_batches(monkeypatch):
    """How many examples of each batch were left to the longer way; none is looked at for its units."""
    left, own = [], SegmentationTransform._write_plain_examples

    def write(self, examples, labels):
        others = own(self, examples, labels)
        left.append((len(others), len(examples)))
        return others

    monkeypatch.setattr(SegmentationTransform, "_write_plain_examples", write)
    monkeypatch.setattr(transforms, "_CROPS_CHECKED_FOR_UNITS", 0)
    return left


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("augmentation", ["hflip", "d4", "none"])
@pytest.mark.parametrize("kind", [*KINDS, mostly_ignored, high_fill, far_apart])
def test_the_short_way_changes_nothing(kind, augmentation, normalize, tmp_path, plain_batches):
    (tmp_path / "data").mkdir()
    dataset, processor = kind(tmp_path / "data")
    cached = cache_chips(dataset, processor, "train", tmp_path, show_progress=False)
    for size in (16, (20, 33), 64):
        transform = SegmentationTransform(processor, size, augmentation, train=True, normalize=normalize)
        short, long = cached.with_transform(transform), dataset.with_transform(transform)
        for seed in range(4):
            rows = np.random.default_rng(seed).integers(0, len(dataset), 3).tolist()
            one, other = draw(short, rows, seed), draw(long, rows, seed)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)
            assert all(one[name].dtype == other[name].dtype for name in one)


def test_which_batches_take_it(tmp_path, plain_batches):
    dataset, processor = mostly_ignored(tmp_path)
    cached = cache_chips(dataset, processor, "train", tmp_path, show_progress=False)
    transform = SegmentationTransform(processor, 40, "d4", train=True, normalize=False)
    draw(cached.with_transform(transform), [1, 2, 3], 0)
    draw(dataset.with_transform(transform), [1, 2, 3], 0)
    draw(cached.with_transform(transform), [1, 0, 0], 0)
    assert plain_batches == [(0, 3), (3, 3), (2, 3)]


def test_values_that_are_no_class_are_still_found(tmp_path, plain_batches):
    dataset, processor = mostly_ignored(tmp_path, values=(1, 2, 9))
    cached = cache_chips(dataset, processor, "train", tmp_path, show_progress=False)
    transform = SegmentationTransform(processor, 48, train=True)
    with pytest.raises(ValueError, match=r"mask.tif: expected mask values 1 to 3.*found 9"):
        draw(cached.with_transform(transform), [1, 2, 3], 0)


def test_a_processor_that_looks_itself_is_asked(tmp_path, plain_batches):
    class Own(PrithviImageProcessor):
        asked = 0

        def examine(self, *arguments, **options):
            Own.asked += 1
            return super().examine(*arguments, **options)

    dataset, processor = KINDS[0](tmp_path)
    own = Own(**{name: getattr(processor, name) for name in processor.option_names()})
    cached = cache_chips(dataset, own, "train", tmp_path, show_progress=False)
    draw(cached.with_transform(SegmentationTransform(own, 16, train=True)), [0, 2], 0)
    assert Own.asked == 2


def test_numbers_of_one_example_suffice_whatever_it_draws(tmp_path, plain_batches):
    """A chip with one valid pixel takes all windows and then one around the pixel."""
    pixels, mask = reflectance(6, 300, 0), np.full((1, 300, 300), -1, dtype=np.int16)
    mask[0, 299, 0] = 1
    image = str(write_raster(tmp_path / "a.tif", pixels, descriptions=BANDS))
    processor = PrithviImageProcessor(bands=list(BANDS), num_labels=2, ignore_values=[-1])
    dataset = as_dataset([image], [str(write_raster(tmp_path / "a_mask.tif", mask))])
    cached = cache_chips(dataset, processor, "train", tmp_path, show_progress=False)
    transform = SegmentationTransform(processor, 8, "d4", train=True)
    for seed in range(5):
        assert (draw(cached.with_transform(transform), [0], seed)["labels"] == 1).sum() == 1
    assert len(_Dice.numbers_for(1)[0]) == 25
