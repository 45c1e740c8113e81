# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics of a split: against numpy on all values at once, by the processor's rules, whatever the order."""

import math

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prithvi_hf.data import audit_split, compute_statistics
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.statistics import BandMoments, ValueHistogram
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from tests.raster_factory import BANDS, cut_off, labels, reflectance, transform_at, write_chip, write_mask
from tests.raster_factory import write_raster as write


FEATURES = Features({"image": GeoTiff(), "mask": GeoTiff(), "id": Value("string")})
NAMES = ["A", "B"]


def dataset_of(images, masks=None, ids=None):
    """Rows of files; an image may be a list of frames."""
    image = List(GeoTiff()) if isinstance(images[0], list) else GeoTiff()
    rows = {
        "image": [[str(frame) for frame in item] if isinstance(item, list) else str(item) for item in images],
        "mask": [None] * len(images) if masks is None else [None if mask is None else str(mask) for mask in masks],
        "id": [f"chip{index}" for index in range(len(images))] if ids is None else ids,
    }
    return Dataset.from_dict(rows, features=Features({**FEATURES, "image": image}))


def written(folder, chips, **options):
    """Images of two bands, one file each."""
    return dataset_of([write(folder / f"{index}.tif", chip, **options) for index, chip in enumerate(chips)])


def two_bands(**options):
    return PrithviImageProcessor(bands=NAMES, image_mean=[0.0, 0.0], image_std=[1.0, 1.0], **options)


def measure(dataset, processor=None, **options):
    return compute_statistics(dataset, processor or two_bands(), show_progress=False, **options)


def assert_equal_to_numpy(found, values, rel=1e-12, scale=1.0, offset=0.0):
    """Each band's figures are those of all its valid values, in float64."""
    for band, mean, std, expected in zip(found.bands, found.image_mean, found.image_std, values, strict=True):
        expected = np.asarray(expected, dtype=np.float64)
        assert band.count == expected.size
        assert (band.minimum, band.maximum) == (expected.min(), expected.max())
        assert band.mean == pytest.approx(expected.mean(), rel=rel)
        assert band.std == pytest.approx(expected.std(), rel=rel)
        assert mean == pytest.approx(expected.mean() * scale + offset, rel=rel)
        assert std == pytest.approx(expected.std() * abs(scale), rel=rel)


SIZES = [(8, 8), (5, 9), (16, 3)]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32", "float64"])
def test_all_values_of_chips_of_several_sizes(tmp_path, dtype):
    rng = np.random.default_rng(0)
    chips = [rng.integers(1, 200, (2, *size)).astype(dtype) for size in SIZES]
    found = measure(written(tmp_path, chips), two_bands(rescale_factor=-1e-4, rescale_offset=0.5))
    values = np.concatenate([chip.reshape(2, -1) for chip in chips], axis=1)
    assert_equal_to_numpy(found, values, scale=-1e-4, offset=0.5)
    assert found.chips == 3
    assert found.sizes == dict.fromkeys(sorted(SIZES), 1)
    assert found.total_pixels == values.shape[1]
    assert found.nodata_pixels == 0
    assert found.band_names == ("A", "B")


def test_missing_values_are_left_out_one_by_one(tmp_path):
    """NaN, infinity and -9999 in one band alone, and pixels that lack both bands."""
    rng = np.random.default_rng(1)
    chip = rng.normal(1000, 50, (2, 10, 10)).astype(np.float32)
    chip[0, 0, :4] = [np.nan, np.inf, -np.inf, -9999]
    chip[:, 5] = [[-9999], [np.nan]]
    found = measure(written(tmp_path, [chip]), two_bands(nodata_value=-9999))
    valid = np.isfinite(chip) & (chip != -9999)
    assert_equal_to_numpy(found, [chip[band][valid[band]] for band in range(2)])
    assert [band.count for band in found.bands] == [86, 90]
    assert found.nodata_pixels == 10


def test_the_tag_the_value_and_the_rule_of_the_processor(tmp_path):
    chip = np.random.default_rng(2).integers(10, 99, (2, 6, 6)).astype(np.int16)
    chip[:, 0] = 0  # the tag
    chip[:, 1] = -1  # the value
    chip[0, 2] = -1
    dataset = written(tmp_path, [chip], nodata=0)
    every = measure(dataset, two_bands(nodata_value=-1))
    assert every.nodata_pixels == 12
    assert [band.count for band in every.bands] == [18, 24]
    any_band = measure(dataset, two_bands(nodata_value=-1, nodata_rule="any"))
    assert any_band.nodata_pixels == 18
    assert [band.count for band in any_band.bands] == [18, 18]
    assert_equal_to_numpy(any_band, chip[:, 3:].reshape(2, -1))


@pytest.mark.parametrize("noise", [1.0, 0.125])
def test_large_means_leave_the_standard_deviation_exact(tmp_path, noise):
    """Sums of squares would lose all digits here: the variance is a trillionth of the squared mean."""
    rng = np.random.default_rng(3)
    chips = [(1e6 + noise * rng.integers(-4, 5, (2, 12, 12))).astype(np.float32) for _ in range(5)]
    values = np.concatenate([chip.reshape(2, -1) for chip in chips], axis=1).astype(np.float64)
    found = measure(written(tmp_path, chips))
    exact = np.std(values - 1e6, axis=1)
    assert found.image_std == pytest.approx(exact.tolist(), rel=1e-9)
    assert found.image_mean == pytest.approx(values.mean(axis=1).tolist(), rel=1e-15)


def test_neither_threads_nor_order_change_the_figures(tmp_path):
    rng = np.random.default_rng(4)
    chips = [rng.normal(3000 * seed, 1 + seed, (2, 9, 9)).astype(np.float32) for seed in range(12)]
    dataset = written(tmp_path, chips)
    one = measure(dataset, num_threads=1, with_histograms=True)
    many = measure(dataset, num_threads=7, with_histograms=True)
    assert (one.bands, one.digest) == (many.bands, many.digest)
    turned = measure(dataset.select(range(11, -1, -1)), with_histograms=True)
    assert turned.digest == one.digest
    for first, second, third in zip(one.bands, turned.bands, one.histograms, strict=True):
        assert second.mean == pytest.approx(first.mean, rel=1e-12)
        assert second.std == pytest.approx(first.std, rel=1e-12)
        assert third.counts.sum() == first.count
    for first, second in zip(one.histograms, turned.histograms, strict=True):
        np.testing.assert_array_equal(first.edges, second.edges)
        np.testing.assert_array_equal(first.counts, second.counts)


def test_streams(tmp_path):
    dataset = written(tmp_path, [reflectance(2, 6, seed) for seed in range(3)])
    assert measure(dataset.to_iterable_dataset()) == measure(dataset)


def test_frames_are_pooled_by_band(tmp_path):
    """A stack of all bands of the first date, then of the second, and the same as a file a date."""
    frames = [reflectance(2, 7, seed) for seed in range(3)]
    values = np.concatenate([frame.reshape(2, -1) for frame in frames], axis=1)
    stack = written(tmp_path / "stack", [np.concatenate(frames)])
    files = dataset_of([[write(tmp_path / f"{index}.tif", frame) for index, frame in enumerate(frames)]])
    for dataset in (stack, files):
        found = measure(dataset, two_bands(num_frames=3))
        assert_equal_to_numpy(found, values)
        assert found.total_pixels == 49
    plain = measure(stack, two_bands(num_frames=3))
    mixed = measure(stack, two_bands(num_frames=3, nodata_replacement=7))
    assert plain.bands == mixed.bands


def test_bands_are_found_by_name(tmp_path):
    chip = write_chip(tmp_path / "a.tif")
    processor = PrithviImageProcessor(bands=["SWIR_2", "BLUE"], do_normalize=False)
    found = measure(dataset_of([chip]), processor)
    assert_equal_to_numpy(found, reflectance(6)[[5, 0]].reshape(2, -1))


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)), st.integers(0, 60))
def test_moments_of_parts_add_up(values, cut):
    whole, parts = BandMoments.of(values), BandMoments.of(values[:cut]) + BandMoments.of(values[cut:])
    exact = values.astype(np.float64)
    spread = max(abs(exact).max(), 1e-30)
    for found in (whole, parts):
        assert found.count == values.size
        assert (found.minimum, found.maximum) == (exact.min(), exact.max())
        assert found.mean == pytest.approx(exact.mean(), abs=1e-13 * spread)
        assert found.std == pytest.approx(exact.std(), rel=1e-9, abs=1e-12 * spread)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        arrays.arrays(np.float32, st.integers(0, 9), elements=st.floats(-(2.0**99), 2.0**99, width=32)), max_size=5
    )
)
def test_histograms_of_parts_add_up(parts):
    found = sum(map(ValueHistogram.of, parts), ValueHistogram())
    values = np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float64)
    assert found.counts.sum() == values.size
    assert len(found.counts) <= 512
    if values.size:
        inner = found.edges[1:-1]
        np.testing.assert_array_equal(found.counts[:-1].cumsum(), [(values < edge).sum() for edge in inner])
        assert found.edges[0] <= values.min()
        assert values.max() < found.edges[-1]


def test_whole_numbers_get_bins_of_whole_numbers():
    found = ValueHistogram.of(np.array([3, 3, 5], np.int16))
    np.testing.assert_array_equal(found.edges, [3, 4, 5, 6])
    np.testing.assert_array_equal(found.counts, [2, 0, 1])


# ----------------------------------------------------------------- bands that cannot normalise


@pytest.mark.parametrize("value", [7.0, 0.1, 1e6 / 3])
def test_a_constant_has_no_spread_at_all(tmp_path, value):
    chips = [np.full((2, 5, size), value, np.float32) for size in (5, 7, 11)]
    found = measure(written(tmp_path, chips))
    assert found.image_std == [0.0, 0.0]
    assert found.image_mean == pytest.approx([float(np.float32(value))] * 2, rel=1e-15)


def test_rounding_gives_a_constant_no_spread():
    assert BandMoments(count=2, mean=0.1, deviations=1e-34, minimum=0.1, maximum=0.1).std == 0


def test_a_band_without_a_valid_value(tmp_path):
    chip = np.stack([np.full((5, 5), np.nan), np.ones((5, 5))]).astype(np.float32)
    found = measure(written(tmp_path, [chip]))
    assert found.bands[0].count == 0
    assert math.isnan(found.image_mean[0])
    assert math.isnan(found.image_std[0])


# ----------------------------------------------------------------- labels


@pytest.fixture
def floods(tmp_path):
    images = [write_chip(tmp_path / f"{seed}.tif", seed=seed) for seed in range(3)]
    masks = [write_mask(tmp_path / f"{seed}_mask.tif", seed=seed) for seed in range(3)]
    return dataset_of(images, masks)


def six_bands(**options):
    return PrithviImageProcessor(bands=list(BANDS), **options)


def test_labels_by_the_rules_of_the_processor(floods):
    masks = np.stack([labels(seed=seed) for seed in range(3)])
    counts = {value: int((masks == value).sum()) for value in (-1, 0, 1)}
    found = measure(floods, six_bands(ignore_values=[-1]), num_labels=2)
    assert found.mask_values == counts
    assert found.class_pixels == {0: counts[0], 1: counts[1]}
    assert found.class_chips == {0: 3, 1: 3}
    assert found.ignored_pixels == counts[-1]
    assert found.label_problems == ()
    reduced = measure(floods, six_bands(ignore_values=[-1], do_reduce_labels=True))
    assert reduced.class_pixels == {0: counts[1]}
    assert reduced.ignored_pixels == counts[-1] + counts[0]
    assert reduced.mask_values == counts


def test_labels_of_nodata_pixels_can_be_left_out(floods, tmp_path):
    pixels = reflectance(6)
    pixels[:, :4] = 0
    write(tmp_path / "0.tif", pixels, descriptions=BANDS, nodata=0)
    plain = measure(floods.select([0]), six_bands(ignore_values=[-1]))
    assert plain.class_pixels == {value: int((labels() == value).sum()) for value in (0, 1)}
    found = measure(floods.select([0]), six_bands(ignore_values=[-1], mask_nodata_labels=True))
    assert found.class_pixels == {value: int((labels()[4:] == value).sum()) for value in (0, 1)}
    assert found.class_pixels[0] + found.class_pixels[1] + found.ignored_pixels == 32 * 32


def test_values_outside_the_classes_are_found_in_nodata_pixels_too(floods, tmp_path):
    """Training checks all labels before it puts those of nodata pixels aside."""
    pixels, mask = reflectance(6), labels()
    pixels[:, 0], mask[0, 0] = 0, 9
    write(tmp_path / "0.tif", pixels, descriptions=BANDS, nodata=0)
    write(tmp_path / "0_mask.tif", mask)
    processor = six_bands(ignore_values=[-1], mask_nodata_labels=True)
    (problem,) = measure(floods.select([0]), processor, num_labels=2).label_problems
    assert problem.values == {9: 1}
    with pytest.raises(ValueError, match=r"0_mask\.tif.*9 \(1 pixel\)"):
        audit_split(floods.select([0]), processor, 2, "train", show_progress=False)


def test_every_value_outside_the_classes_is_named_with_its_file(floods, tmp_path):
    for seed, strange in ((0, [9, 9, 7]), (2, [-5])):
        mask = labels(seed=seed)
        mask[1, : len(strange)] = strange
        write(tmp_path / f"{seed}_mask.tif", mask)
    found = measure(floods, six_bands(ignore_values=[-1]), num_labels=2)
    first, second = found.label_problems
    assert first.name.endswith("0_mask.tif")
    assert first.values == {7: 1, 9: 2}
    assert second.name.endswith("2_mask.tif")
    assert second.values == {-5: 1}
    assert found.mask_values[9] == 2
    assert set(found.class_pixels) == {0, 1}
    unknown = measure(floods, six_bands(ignore_values=[-1]))
    assert [problem.values for problem in unknown.label_problems] == [{-5: 1}]
    assert unknown.class_pixels[9] == 2


def test_fractions_are_named_and_nodata_is_ignored(floods, tmp_path):
    mask = np.zeros((32, 32), np.float32)
    mask[0, :5] = [0.5, np.nan, 1, np.inf, 1e30]
    write(tmp_path / "1_mask.tif", mask)
    found = measure(floods.select([1]), six_bands(), num_labels=2)
    (problem,) = found.label_problems
    assert problem.name.endswith("1_mask.tif")
    assert problem.values == {0.5: 1}
    assert found.class_pixels == {0: 1019, 1: 1}
    assert found.ignored_pixels == 3


def test_masks_that_do_not_fit_are_named_and_not_counted(tmp_path):
    images = [write_chip(tmp_path / f"{index}.tif") for index in range(5)]
    masks = [
        write_mask(tmp_path / "size.tif", size=16),
        write(tmp_path / "bands.tif", np.zeros((2, 32, 32), np.uint8)),
        write_mask(tmp_path / "place.tif", transform=transform_at(longitude=3.0)),
        write(tmp_path / "parcels.tif", np.arange(1024, dtype=np.int32).reshape(32, 32) * 2_000_000),
        None,
    ]
    found = measure(dataset_of(images, masks), six_bands())
    texts = {problem.name.rsplit("/", 1)[-1]: problem.text for problem in found.label_problems}
    assert set(texts) == {"size.tif", "bands.tif", "place.tif"}
    assert texts["size.tif"] == "expected the image's size 32 x 32, found 16 x 16"
    assert texts["bands.tif"].startswith("expected a mask (height, width) or (1, height, width), found shape (2, 32")
    assert "expected the grid of" in texts["place.tif"]
    assert found.chips == 5
    assert found.chips_without_mask == 1
    assert sum(found.mask_values.values()) == 1024


def test_a_mask_of_too_many_values_is_not_a_mask_of_classes(tmp_path):
    image = write_chip(tmp_path / "a.tif", size=40)
    mask = write(tmp_path / "m.tif", np.arange(1600, dtype=np.float32).reshape(40, 40))
    (problem,) = measure(dataset_of([image], [mask]), six_bands()).label_problems
    assert "found 1,600 different values. Remedy: make classes of them" in problem.text


def test_a_split_without_labels(tmp_path):
    found = measure(written(tmp_path, [reflectance(2)]))
    assert found.chips_without_mask == found.chips == 1
    assert (found.class_pixels, found.mask_values, found.label_problems) == ({}, {}, ())


# ----------------------------------------------------------------- files that cannot be read


def test_unreadable_chips_are_named_and_count_nowhere(floods, tmp_path):
    expected = measure(floods.select([1]), six_bands(ignore_values=[-1]))
    cut_off(tmp_path / "0.tif", 0.6)
    (tmp_path / "2_mask.tif").write_bytes(b"II*\0" + b"\xff" * 200)
    found = measure(floods, six_bands(ignore_values=[-1]))
    assert found.chips == 1
    assert found.bands == expected.bands
    assert found.class_pixels == expected.class_pixels
    assert found.digest == expected.digest
    assert len(found.unreadable) == 2
    assert "0.tif: expected a GeoTIFF" in found.unreadable[0]
    assert "2_mask.tif: expected a GeoTIFF" in found.unreadable[1]


def test_missing_bands_make_a_chip_unreadable(floods, tmp_path):
    write(tmp_path / "1.tif", reflectance(5), descriptions=BANDS[:5])
    found = measure(floods, six_bands())
    assert found.chips == 2
    assert "SWIR_2" in found.unreadable[0]


def test_nothing_to_measure(floods, tmp_path):
    with pytest.raises(ValueError, match="Split train: expected at least one chip, found none"):
        measure(floods.select([]))
    for index in range(3):
        cut_off(tmp_path / f"{index}.tif", 10)
    with pytest.raises(ValueError, match=r"none among 3. The first: .*0\.tif"):
        measure(floods, six_bands())


def test_the_statistics_normalise_the_chips(tmp_path):
    """End to end in Python: what is measured makes the processor give mean 0 and standard deviation 1."""
    rng = np.random.default_rng(5)
    chips = [rng.normal([[[2500]], [[900]]], [[[300]], [[70]]], (2, 16, 16)).astype(np.int16) for _ in range(4)]
    chips[0][:, :3] = -9999
    options = {"rescale_factor": 1e-4, "rescale_offset": -0.1, "nodata_value": -9999, "bands": NAMES}
    found = measure(written(tmp_path, chips), two_bands(**{name: options[name] for name in list(options)[:3]}))
    processor = PrithviImageProcessor(**options, image_mean=found.image_mean, image_std=found.image_std)
    inputs = processor(chips, return_nodata_mask=True, return_tensors="pt")
    values = inputs["pixel_values"][:, :, 0].movedim(1, 0)[:, ~inputs["nodata_mask"]].double()
    assert values.mean(1).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert values.std(1, correction=0).tolist() == pytest.approx([1, 1], rel=1e-5)


def test_real_chips(flood_chips, tmp_path):
    from prithvi_hf.data import load_dataset

    bolivia = load_dataset("sen1floods11", data_dir=flood_chips, split="train", cache_dir=str(tmp_path)).select([0, 1])
    processor = PrithviImageProcessor(rescale_factor=1e-4, ignore_values=[-1], nodata_value=0)
    found = measure(bolivia, processor, num_labels=2)
    images = np.stack([row["image"].read(bands=[1, 2, 3, 8, 11, 12]) for row in bolivia]).swapaxes(0, 1)
    assert_equal_to_numpy(found, [band[band != 0] for band in images], scale=1e-4)
    masks = np.stack([row["mask"].read() for row in bolivia])
    assert found.mask_values == {value: int((masks == value).sum()) for value in np.unique(masks).tolist()}
    assert found.label_problems == ()
