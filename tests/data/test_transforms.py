"""Crops, flips, rotations, padding and batches; image and labels always move together."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List
from torch.utils.data import DataLoader

from prithvi_hf.data import (
    ClassificationTransform,
    SegmentationTransform,
    TrainingCrops,
    cache_chips,
    collate_chips,
    transforms,
)
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.data.test_chip_cache import KINDS, as_dataset
from tests.raster_factory import BANDS, coordinate_array, reflectance, write_chip, write_mask, write_raster


@pytest.fixture
def processor():
    """Bands in file order, no scaling: pixel_values are the file's values."""
    return PrithviImageProcessor(bands=list(BANDS), do_normalize=False, ignore_values=[-1], num_labels=2)


def coordinate_chip(tmp_path, size, name="coordinates"):
    """An image whose bands tell row and column, and a mask computed from them."""
    array = coordinate_array(size)
    image = write_raster(tmp_path / f"{name}.tif", array, descriptions=BANDS)
    mask = write_raster(tmp_path / f"{name}_mask.tif", mask_of(array[0], array[1]))
    return GeoTiffRaster(image), GeoTiffRaster(mask)


def mask_of(row, column):
    """A label for each coordinate without any symmetry, int16, -1 to 1."""
    return ((row * 7 + column * 3 + row * column) % 3 - 1).astype(np.int16)


def apply(transform, image, mask):
    batch = transform({"image": [image], "mask": [mask]})
    return batch["pixel_values"][0], batch["labels"][0]


def assert_labels_follow(pixel_values, labels):
    """The label of each pixel is the one its coordinates had in the file."""
    row, column = pixel_values[0, 0].numpy(), pixel_values[1, 0].numpy()
    expected = mask_of(row.astype(np.int64), column.astype(np.int64))
    np.testing.assert_array_equal(labels.numpy(), np.where(expected == -1, -100, expected))


@pytest.mark.parametrize("augmentation", ["none", "hflip", "d4"])
@pytest.mark.parametrize("size", [(24, 40), (32, 32)])
@pytest.mark.parametrize("crop", [16, (8, 20), None])
def test_image_and_labels_move_together(processor, tmp_path, augmentation, size, crop):
    image, mask = coordinate_chip(tmp_path, size)
    transform = SegmentationTransform(processor, crop, augmentation, train=True)
    expected = size if crop is None else (crop, crop) if isinstance(crop, int) else crop
    for seed in range(6):
        torch.manual_seed(seed)
        pixel_values, labels = apply(transform, image, mask)
        assert pixel_values.shape == (6, 1, *expected)
        assert labels.shape == expected
        assert (pixel_values.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert_labels_follow(pixel_values, labels)


def orientations(processor, tmp_path, augmentation, size):
    """All arrangements of the four corners that 60 draws give."""
    image, mask = coordinate_chip(tmp_path, size)
    transform = SegmentationTransform(processor, None, augmentation, train=True)
    torch.manual_seed(0)
    found = set()
    for _ in range(60):
        rows, columns = apply(transform, image, mask)[0][:2, 0]
        found.add(tuple((int(rows[i, j]), int(columns[i, j])) for i in (0, -1) for j in (0, -1)))
    return found


@pytest.mark.parametrize(
    ("augmentation", "size", "count"),
    [("none", (16, 16), 1), ("hflip", (16, 16), 2), ("d4", (16, 16), 8), ("d4", (8, 16), 4), ("hflip", (8, 16), 2)],
)
def test_each_symmetry_occurs(processor, tmp_path, augmentation, size, count):
    assert len(orientations(processor, tmp_path, augmentation, size)) == count


def test_horizontal_flip_is_left_right(processor, tmp_path):
    found = orientations(processor, tmp_path, "hflip", (8, 16))
    assert found == {((1, 1), (1, 16), (8, 1), (8, 16)), ((1, 16), (1, 1), (8, 16), (8, 1))}


def test_crops_reach_every_corner(processor, tmp_path):
    image, mask = coordinate_chip(tmp_path, (10, 12))
    transform = SegmentationTransform(processor, (8, 10), train=True)
    torch.manual_seed(0)
    corners = {tuple(int(v) for v in apply(transform, image, mask)[0][:2, 0, 0, 0]) for _ in range(80)}
    assert corners == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_only_the_crop_is_read(processor, tmp_path, monkeypatch):
    image, mask = coordinate_chip(tmp_path, (64, 64))
    shapes, read = [], GeoTiffRaster.read
    monkeypatch.setattr(GeoTiffRaster, "read", lambda self, *a, **k: shapes.append(self.shape) or read(self, *a, **k))
    apply(SegmentationTransform(processor, 16, train=True), image, mask)
    assert {shape[-2:] for shape in shapes} == {(16, 16)}


def test_evaluation_is_the_whole_chip_as_it_is(processor, tmp_path):
    image, mask = coordinate_chip(tmp_path, (24, 40))
    pixel_values, labels = apply(SegmentationTransform(processor, 16, "d4", train=False), image, mask)
    np.testing.assert_array_equal(pixel_values[:, 0], coordinate_array((24, 40)))
    assert_labels_follow(pixel_values, labels)


# ----------------------------------------------------------------- small chips and empty labels


@pytest.mark.parametrize(("size", "crop"), [((10, 20), 16), ((10, 6), 16), ((5, 30), 16), ((1, 3), 8)])
def test_small_chips_are_padded_right_and_bottom(processor, tmp_path, size, crop):
    image, mask = coordinate_chip(tmp_path, size)
    torch.manual_seed(1)
    pixel_values, labels = apply(SegmentationTransform(processor, crop, train=True), image, mask)
    assert pixel_values.shape[-2:] == labels.shape == (crop, crop)
    rows, columns = min(size[0], crop), min(size[1], crop)
    assert_labels_follow(pixel_values[..., :rows, :columns], labels[:rows, :columns])
    assert (labels[rows:] == -100).all()
    assert (labels[:, columns:] == -100).all()
    whole = pixel_values[..., :rows, :columns].numpy()
    padding = [(0, 0), (0, 0), (0, crop - rows), (0, crop - columns)]
    np.testing.assert_array_equal(pixel_values.numpy(), np.pad(whole, padding, mode="reflect"))


def chip_with_labels(tmp_path, labelled):
    """A 64 x 64 chip with one labelled pixel, or none."""
    mask = np.full((64, 64), -1, np.int16)
    if labelled is not None:
        mask[labelled] = 1
    path = write_raster(tmp_path / "mask.tif", mask)
    return GeoTiffRaster(write_chip(tmp_path / "image.tif", size=64)), GeoTiffRaster(path)


@pytest.mark.parametrize("pixel", [(0, 0), (63, 63), (20, 61)])
def test_crop_without_label_is_drawn_again(processor, tmp_path, pixel):
    image, mask = chip_with_labels(tmp_path, pixel)
    transform = SegmentationTransform(processor, 8, "d4", train=True)
    for seed in range(5):
        torch.manual_seed(seed)
        assert (apply(transform, image, mask)[1] == 1).sum() == 1


def test_crop_around_the_only_label_is_not_always_the_same(processor, tmp_path):
    image, mask = chip_with_labels(tmp_path, (30, 30))
    transform = SegmentationTransform(processor, 8, train=True)
    torch.manual_seed(0)
    places = {tuple(apply(transform, image, mask)[1].argmax(-1).tolist()) for _ in range(12)}
    assert len(places) > 3


def test_chip_without_any_label_ends(processor, tmp_path):
    image, mask = chip_with_labels(tmp_path, None)
    pixel_values, labels = apply(SegmentationTransform(processor, 8, train=True), image, mask)
    assert pixel_values.shape == (6, 1, 8, 8)
    assert (labels == -100).all()


# ----------------------------------------------------------------- datasets, frames, workers


def test_with_transform_frames_and_collate(processor, tmp_path):
    frames = [[str(write_chip(tmp_path / f"{chip}{month}.tif", seed=month)) for month in (1, 2)] for chip in "abc"]
    masks = [str(write_mask(tmp_path / f"{chip}_mask.tif")) for chip in "abc"]
    features = Features({"image": List(GeoTiff()), "mask": GeoTiff()})
    dataset = Dataset.from_dict({"image": frames, "mask": masks}, features=features)
    two = PrithviImageProcessor(**{**processor.to_dict(), "num_frames": 2})
    transform = SegmentationTransform(two, 16, "d4", train=True)
    batch = next(iter(DataLoader(dataset.with_transform(transform), batch_size=3, collate_fn=collate_chips)))
    assert batch["pixel_values"].shape == (3, 6, 2, 16, 16)
    assert batch["labels"].shape == (3, 16, 16)
    assert dataset.features == features


def test_workers_draw_different_crops(processor, tmp_path):
    write_chip(tmp_path / "image.tif", size=64)
    write_mask(tmp_path / "mask.tif", size=64)
    rows = {"image": [str(tmp_path / "image.tif")] * 8, "mask": [str(tmp_path / "mask.tif")] * 8}
    dataset = Dataset.from_dict(rows, features=Features({"image": GeoTiff(), "mask": GeoTiff()}))
    dataset = dataset.with_transform(SegmentationTransform(processor, 16, "d4", train=True))

    def draw():
        torch.manual_seed(3)
        loader = DataLoader(dataset, num_workers=2, collate_fn=collate_chips, multiprocessing_context="fork")
        return torch.cat([batch["pixel_values"] for batch in loader])

    first = draw()
    assert len({tuple(chip.flatten()[:32].tolist()) for chip in first}) >= 7
    torch.testing.assert_close(draw(), first, rtol=0, atol=0)


def test_pickles(processor):
    transform = pickle.loads(pickle.dumps(SegmentationTransform(processor, 16, "d4", train=True)))
    assert (transform.crop_size, transform.augmentation, transform.train) == ((16, 16), "d4", True)


def test_evaluation_without_masks(processor, tmp_path):
    image = coordinate_chip(tmp_path, 16)[0]
    transform = SegmentationTransform(processor)
    assert set(transform({"image": [image], "mask": [None]})) == {"pixel_values"}
    assert set(transform({"image": [image]})) == {"pixel_values"}


# ----------------------------------------------------------------- refused


def test_training_needs_masks(processor, tmp_path):
    image, mask = coordinate_chip(tmp_path, 16)
    with pytest.raises(ValueError, match=r"coordinates\.tif: expected a mask"):
        SegmentationTransform(processor, 8, train=True)({"image": [image], "mask": [None]})
    with pytest.raises(ValueError, match=r"coordinates\.tif: expected a mask"):
        SegmentationTransform(processor)({"image": [image, image], "mask": [mask, None]})


@pytest.mark.parametrize("train", [True, False])
def test_image_and_mask_of_different_size(processor, tmp_path, train):
    image = coordinate_chip(tmp_path, 16)[0]
    mask = GeoTiffRaster(write_mask(tmp_path / "other.tif", size=(16, 20)))
    with pytest.raises(ValueError, match=r"coordinates\.tif 16 x 16.*other\.tif 16 x 20"):
        apply(SegmentationTransform(processor, 8, train=train), image, mask)


def test_columns_that_are_no_rasters(processor):
    with pytest.raises(TypeError, match="cast_column"):
        SegmentationTransform(processor)({"image": [np.zeros((6, 8, 8))], "mask": [None]})


def test_mask_value_outside_the_classes_is_named(processor, tmp_path):
    image = coordinate_chip(tmp_path, 16)[0]
    mask = GeoTiffRaster(write_raster(tmp_path / "seven.tif", np.full((16, 16), 7, np.int16)))
    with pytest.raises(ValueError, match=r"seven\.tif.*7 \(\d+ pixels\)"):
        apply(SegmentationTransform(processor, 8, train=True), image, mask)


@pytest.mark.parametrize("crop", [0, -3, (8,), (8, 0), 2.5, "16"])
def test_bad_crop_size(processor, crop):
    with pytest.raises(ValueError, match="crop_size"):
        SegmentationTransform(processor, crop)


def test_bad_augmentation(processor):
    with pytest.raises(ValueError, match="none, hflip or d4"):
        SegmentationTransform(processor, 16, "mixup")


def test_collate_refuses_different_sizes_and_missing_labels():
    small = {"pixel_values": torch.zeros(6, 1, 4, 4), "labels": torch.zeros(4, 4)}
    large = {"pixel_values": torch.zeros(6, 1, 4, 8), "labels": torch.zeros(4, 8)}
    with pytest.raises(ValueError, match=r"\(6, 1, 4, 4\), \(6, 1, 4, 8\).*batch size of 1"):
        collate_chips([small, large])
    with pytest.raises(ValueError, match="some without"):
        collate_chips([small, {"pixel_values": small["pixel_values"]}])
    assert set(collate_chips([{"pixel_values": small["pixel_values"]}] * 2)) == {"pixel_values"}


# ----------------------------------------------------------------- chips that need no look at single values


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

    def write(self, examples, *arguments):
        others = own(self, examples, *arguments)
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


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_crop_depends_on_seed_epoch_and_chip_alone(tmp_path, cached, workers):
    """Not on the batch that it is in, nor on the worker that draws it, also where workers outlive an epoch."""
    pairs = [coordinate_chip(tmp_path, (40, 44), str(number)) for number in range(5)]
    dataset = as_dataset(*([raster.path for raster in column] for column in zip(*pairs, strict=True)))
    processor = PrithviImageProcessor(bands=list(BANDS), do_normalize=False, ignore_values=[-1], num_labels=2)
    chips = cache_chips(dataset, processor, cache_dir=tmp_path, show_progress=False) if cached else dataset
    transform = SegmentationTransform(processor, 8, "d4", train=True)

    def crops(batch_size, seed=0, epochs=(0, 1)):
        source = TrainingCrops(chips, transform, seed)
        options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": collate_chips}
        loader, found = DataLoader(source, batch_size, **options), []
        for epoch in epochs:
            source.set_epoch(epoch)
            found.append(torch.cat([batch["pixel_values"].clone() for batch in loader]))
        return found

    first, second = crops(batch_size=2)
    torch.manual_seed(7)
    assert all(map(torch.equal, crops(batch_size=5), (first, second)))
    assert not torch.equal(first, second)
    assert not torch.equal(crops(batch_size=2, seed=1, epochs=[0])[0], first)
    assert len({tuple(crop[:2].flatten().tolist()) for crop in first}) == 5


# ---------------------------------------------------------------------- regression and classification


def value_chip(tmp_path, size, valid=1.0, name="values"):
    """An image whose bands tell row and column, and a target of row + column / 1000; other pixels are nodata."""
    array = coordinate_array(size)
    target = (array[0] + array[1] / 1000).astype(np.float32)
    target[np.random.default_rng(0).random(size) >= valid] = -9999
    image = write_raster(tmp_path / f"{name}.tif", array, descriptions=BANDS)
    return image, write_raster(tmp_path / f"{name}_target.tif", target, nodata=-9999)


def make_value_processor():
    return PrithviImageProcessor(bands=list(BANDS), do_normalize=False, label_type="value")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_targets_move_with_their_image(tmp_path, cached, normalize):
    paths = [value_chip(tmp_path, size, 0.5, f"chip{i}") for i, size in enumerate([(40, 24), (12, 30)])]
    features = Features({"image": GeoTiff(), "mask": GeoTiff()})
    rows = {"image": [str(image) for image, _ in paths], "mask": [str(target) for _, target in paths]}
    dataset, processor = Dataset.from_dict(rows, features), make_value_processor()
    if cached:
        dataset = cache_chips(dataset, processor, "a", tmp_path / "cache", show_progress=False)
    transform = SegmentationTransform(processor, 16, "d4", train=True, normalize=normalize)
    for seed in range(6):
        torch.manual_seed(seed)
        batch = collate_chips([dataset.with_transform(transform)[i] for i in range(2)])
        values, labels = batch["pixel_values" if normalize else "file_values"].float(), batch["labels"]
        assert labels.dtype == torch.float32
        expected = values[:, 0, 0] + values[:, 1, 0] / 1000
        valid = ~labels.isnan()
        torch.testing.assert_close(labels[valid], expected[valid])
        assert 0.2 < valid[0].float().mean() < 0.8
        assert valid[1].float().mean() < 0.6  # below or beside a chip of 12 rows there is no target


def test_a_crop_without_a_target_is_drawn_again(tmp_path):
    image, target = value_chip(tmp_path, (64, 64), valid=0)
    lonely = np.full((64, 64), -9999, np.float32)
    lonely[50, 9] = 1.5
    write_raster(target, lonely, nodata=-9999)
    transform = SegmentationTransform(make_value_processor(), 8, train=True)
    labels = apply(transform, GeoTiffRaster(image), GeoTiffRaster(target))[1]
    assert labels[~labels.isnan()].tolist() == [1.5]


def make_labelled(tmp_path, sizes=((40, 24), (24, 24), (10, 30))):
    paths = [
        write_raster(tmp_path / f"{i}.tif", coordinate_array(size), descriptions=BANDS) for i, size in enumerate(sizes)
    ]
    rows = {"image": list(map(str, paths)), "label": ["River", "Forest;River", "Forest"], "id": ["0", "1", "2"]}
    return Dataset.from_dict(rows).cast_column("image", GeoTiff())


@pytest.mark.parametrize("cached", [False, True])
def test_crops_of_labelled_chips_have_the_label_of_their_chip(processor, tmp_path, cached):
    dataset = make_labelled(tmp_path)
    if cached:
        dataset = cache_chips(dataset, processor, "a", tmp_path / "cache", show_progress=False)
    options = {"crop_size": 16, "augmentation": "d4", "train": True, "normalize": False}
    transform = ClassificationTransform(processor, ["Forest", "River"], multi_label=True, **options)
    crops = TrainingCrops(dataset, transform, seed=0)
    loader = DataLoader(crops, batch_size=3, collate_fn=collate_chips, num_workers=1)
    [batch] = list(loader)
    assert batch["file_values"].shape == (3, 6, 1, 16, 16)
    assert batch["file_values"].dtype == torch.int16
    assert batch["labels"].tolist() == [[0, 1], [1, 1], [1, 0]]
    crops.set_epoch(1)
    assert not torch.equal(next(iter(loader))["file_values"][:2], batch["file_values"][:2])


def test_evaluation_of_labelled_chips_reads_them_whole(processor, tmp_path):
    transform = ClassificationTransform(processor, ["Forest", "River", "Forest;River"])
    rows = make_labelled(tmp_path).with_transform(transform)
    assert rows[1]["pixel_values"].shape == (6, 1, 24, 24)
    assert [int(row["labels"]) for row in rows] == [1, 2, 0]
    with pytest.raises(ValueError, match="Expected crop_size"):
        ClassificationTransform(processor, ["Forest"], train=True)
