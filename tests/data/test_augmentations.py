"""Radiometric jitter, lost bands and dates, a user's own augmentation, crops balanced by class: on real files."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from prithvi_hf.data import (
    RadiometricJitter,
    SegmentationTransform,
    TrainingCrops,
    cache_chips,
    collate_chips,
    count_class_pixels,
)
from prithvi_hf.data.augmentations import augment_crop, find_augmentation
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from tests.data.test_chip_cache import as_dataset
from tests.raster_factory import BANDS, reflectance, write_raster


EVERYTHING = RadiometricJitter((0.2, 0.1), (0.02, 0.01), 0.005, 0.2)
RARE = 12  # pixels of class 1, in one chip of four


REFLECTANCE = {
    "bands": list(BANDS),
    "rescale_factor": 0.0001,
    "image_mean": [0.10, 0.12, 0.14, 0.30, 0.25, 0.15],
    "image_std": [0.04, 0.04, 0.05, 0.08, 0.07, 0.05],
}
STATISTICS = ("image_mean", "image_std")
GREY = np.full((6, 1, 8, 8), 0.2, np.float32)


@pytest.fixture(scope="module")
def processor():
    return PrithviImageProcessor(**REFLECTANCE, ignore_values=[-1], num_labels=2)


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Four chips of 40 px whose left edge has no data; the last one alone has pixels of class 1, 12 of 6,400."""
    folder, images, masks = tmp_path_factory.mktemp("chips"), [], []
    for number in range(4):
        pixels, mask = reflectance(6, 40, number), np.zeros((1, 40, 40), np.int16)
        pixels[..., :4] = -9999
        mask[..., :4] = -1
        if number == 3:
            mask[0, 30:33, 20:24] = 1
        images.append(str(write_raster(folder / f"{number}.tif", pixels, descriptions=BANDS, nodata=-9999)))
        masks.append(str(write_raster(folder / f"{number}_mask.tif", mask)))
    return as_dataset(images, masks)


def draw(chips, transform, seed=0, epoch=0, **options):
    """All crops of an epoch, and their labels."""
    own = {name: options.pop(name) for name in ("class_pixels", "copy_paste") if name in options}
    source = TrainingCrops(chips, transform, seed, **own)
    source.set_epoch(epoch)
    name = options.pop("name", "pixel_values")
    batches = [
        [batch[key].clone() for key in (name, "labels")]
        for batch in DataLoader(source, collate_fn=collate_chips, **options)
    ]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def jittered(jitter, image, seed=0):
    """What jitter makes of one image of reflectance, unnormalised again."""
    processor = PrithviImageProcessor(**REFLECTANCE)
    mean, std = (np.float32(REFLECTANCE[name])[:, None, None, None] for name in STATISTICS)
    values = ((image - mean) / std).astype(np.float32)
    augment_crop(values, None, [seed], processor, jitter)
    return values * std + mean


def test_crops_with_everything_off_are_those_without_augmentation(chips, processor):
    plain = draw(chips, SegmentationTransform(processor, 16, "d4", train=True))
    off = draw(chips, SegmentationTransform(processor, 16, "d4", train=True, jitter=RadiometricJitter()))
    assert all(map(torch.equal, plain, off))


@pytest.mark.parametrize("cached", [True, False])
def test_augmented_crops_depend_on_seed_epoch_and_chip_alone(chips, processor, cached, tmp_path):
    source = cache_chips(chips, processor, cache_dir=tmp_path, show_progress=False) if cached else chips
    transform = SegmentationTransform(
        processor, 16, "d4", train=True, jitter=EVERYTHING, custom_augmentation=add_noise
    )
    options = {"class_pixels": count_class_pixels(source, processor, 2, show_progress=False), "copy_paste": 0.5}
    first = draw(source, transform, batch_size=1, **options)
    torch.manual_seed(5)
    assert all(map(torch.equal, first, draw(source, transform, batch_size=3, num_workers=2, **options)))
    assert not torch.equal(first[0], draw(source, transform, epoch=1, **options)[0])
    assert not torch.equal(first[0], draw(source, transform, seed=1, **options)[0])


def test_jitter_leaves_place_labels_and_pixels_without_data(chips, processor):
    transform, changed = (
        SegmentationTransform(processor, 40, "d4", train=True, jitter=jitter) for jitter in (None, EVERYTHING)
    )
    (plain, labels), (values, same_labels) = draw(chips, transform), draw(chips, changed)
    assert torch.equal(labels, same_labels)
    without_data = (labels == -100)[:, None, None].expand_as(plain)
    assert torch.equal(values[without_data], plain[without_data])
    assert (values[~without_data] != plain[~without_data]).float().mean() > 0.99


def test_common_and_own_gain_stay_within_their_spreads():
    common = np.array([jittered(RadiometricJitter((0.3,)), GREY, seed)[:, 0, 0, 0] / 0.2 for seed in range(200)])
    assert np.ptp(common, axis=1).max() < 1e-5
    assert np.exp(-0.3) <= common.min() < 0.78
    assert 1.3 < common.max() <= np.exp(0.3) + 1e-5
    own = np.array([jittered(RadiometricJitter((0, 0.3)), GREY, seed)[:, 0, 0, 0] / 0.2 for seed in range(200)])
    assert abs(np.corrcoef(own.T)[np.triu_indices(6, 1)]).max() < 0.3
    assert np.exp(-0.3) - 1e-5 <= own.min() < 0.76


def test_offset_and_noise_are_in_reflectance():
    moved = np.array([jittered(RadiometricJitter(band_offset=(0.02, 0)), GREY, seed) - 0.2 for seed in range(100)])
    assert 0.018 < abs(moved).max() <= 0.02 + 1e-6
    noisy = jittered(RadiometricJitter(band_noise=0.01), np.full((6, 1, 100, 100), 0.2, np.float32)) - 0.2
    np.testing.assert_allclose(noisy.std(axis=(1, 2, 3)), 0.01, rtol=0.05)


def test_lost_bands_have_their_mean_and_one_always_stays():
    lost = []
    for seed in range(100):
        image = jittered(RadiometricJitter(band_dropout=0.7), GREY, seed)[:, 0, 0, 0]
        is_mean = np.isclose(image, REFLECTANCE["image_mean"], atol=1e-6)
        assert np.isclose(image[~is_mean], 0.2).all()
        lost.append(is_mean)
    assert 0.6 < np.mean(lost) < 0.75
    assert not np.all(lost, axis=1).any()


@pytest.mark.parametrize("order", ["time_major", "original_crop"])
def test_a_lost_date_has_no_data_in_all_bands_and_each_comes_as_often(order):
    """Where the processor mixes bands and dates too."""
    processor = PrithviImageProcessor(**REFLECTANCE, num_frames=3, frame_order=order)
    dates = [np.full((6, 4, 4), 1000 * (date + 1), np.int16) for date in range(3)]
    plain = processor([dates], return_tensors="np")["pixel_values"][0]
    fill = processor([[np.zeros((6, 4, 4), np.int16)] * 3], return_tensors="np")["pixel_values"][0]
    times = np.zeros(3, int)
    for seed in range(120):
        values = plain.copy()
        augment_crop(values, None, [seed], processor, RadiometricJitter(frame_dropout=0.5))
        shown, own, empty = (processor.restore_frame_order(torch.from_numpy(part)) for part in (values, plain, fill))
        is_lost = [torch.equal(shown[:, date], empty[:, date]) for date in range(3)]
        assert all(is_lost[date] or torch.equal(shown[:, date], own[:, date]) for date in range(3))
        assert sum(is_lost) < 2
        times += is_lost
    assert 40 < times.sum() < 80
    assert times.min() > 10


# ------------------------------------------------------------------------------------------- balance


def test_rare_classes_come_as_often_as_common_ones(chips, processor, tmp_path):
    chips = cache_chips(chips, processor, cache_dir=tmp_path, show_progress=False)
    counts = count_class_pixels(chips, processor, 2, show_progress=False)
    assert counts.tolist() == [[1440, 0]] * 3 + [[1440 - RARE, RARE]]
    transform = SegmentationTransform(processor, 8, "d4", train=True)
    labels = [
        torch.cat([draw(chips, transform, epoch=e, class_pixels=c, batch_size=4)[1] for e in range(40)])
        for c in (None, counts)
    ]
    plain, balanced = ((part == 1).flatten(1).any(dim=1).float().mean() for part in labels)
    assert plain < 0.06
    assert 0.4 < balanced < 0.6


def test_crops_of_a_balanced_epoch_hold_the_class_that_was_drawn(chips, processor):
    transform, given = SegmentationTransform(processor, 8, train=True), []
    own = transform.__call__
    source = TrainingCrops(chips, lambda rows: given.append(rows["focus"]) or own(rows), 0, COUNTS)
    labels = source.__getitems__(range(4)).batch["labels"]
    assert all((crop == kind).any() for crop, kind in zip(labels, given[0], strict=True))


COUNTS = np.array([[1440, 0]] * 3 + [[1440 - RARE, RARE]])


def test_balance_needs_counts_of_each_chip_and_labels(chips, processor, tmp_path):
    with pytest.raises(ValueError, match="Expected class_pixels of 4 chips, found 3 rows"):
        TrainingCrops(chips, SegmentationTransform(processor, 8, train=True), 0, COUNTS[:3])
    image = str(write_raster(tmp_path / "a.tif", reflectance(6, 16, 0), descriptions=BANDS))
    mask = str(write_raster(tmp_path / "a_mask.tif", np.full((1, 16, 16), -1, np.int16)))
    with pytest.raises(ValueError, match="Split dry: expected labels to balance by class, found none"):
        count_class_pixels(as_dataset([image], [mask]), processor, 2, "dry", show_progress=False)


def pasted(before, after):
    """Where each crop was written over, (crops, height, width)."""
    return (before[0] != after[0]).any(dim=(1, 2)) | (before[1] != after[1])


@pytest.mark.parametrize("class_pixels", [None, COUNTS])
@pytest.mark.parametrize("normalize", [True, False])
def test_pasted_are_the_pixels_of_one_class_of_another_crop_with_their_labels(
    chips, processor, tmp_path, class_pixels, normalize
):
    source = cache_chips(chips, processor, cache_dir=tmp_path, show_progress=False)
    transform = SegmentationTransform(processor, 24, "d4", train=True, normalize=normalize)
    name = "pixel_values" if normalize else "file_values"
    real = {tuple(pixel) for row in chips for pixel in row["image"].read().reshape(6, -1).T.tolist()} | {(0,) * 6}
    count = rare = 0
    for epoch in range(6):
        before, after = (
            draw(source, transform, 0, epoch, class_pixels=class_pixels, copy_paste=p, name=name) for p in (0, 1)
        )
        where = pasted(before, after)
        assert not (after[1][where] == -100).any()
        assert all(len(labels[place].unique()) < 2 for labels, place in zip(after[1], where, strict=True))
        count, rare = count + where.flatten(1).any(dim=1).sum(), rare + (after[1][where] == 1).sum()
        if not normalize:
            assert {tuple(pixel) for pixel in after[0][:, :, 0].permute(0, 2, 3, 1).reshape(-1, 6).tolist()} <= real
    assert count > 18  # of 24; a crop may get its own pixels
    assert class_pixels is None or rare > RARE


def test_so_many_crops_are_pasted_on(chips, processor, tmp_path):
    source = cache_chips(chips, processor, cache_dir=tmp_path, show_progress=False)
    transform = SegmentationTransform(processor, 24, "d4", train=True)
    plain, some = ([draw(source, transform, 0, epoch, copy_paste=p) for epoch in range(25)] for p in (0, 0.3))
    found = [pasted(*pair).flatten(1).any(dim=1) for pair in zip(plain, some, strict=True)]
    assert 0.15 < torch.cat(found).float().mean() < 0.4


# -------------------------------------------------------------------------------------- a user's own


def add_noise(image, mask, random):
    return image + random.normal(0, 0.01, image.shape), mask


def swap_classes(image, mask, random):
    """Change both in place, in a way that is the same whatever the numbers are."""
    image *= 2
    mask[mask >= 0] = 1 - mask[mask >= 0]
    return image, mask


def test_a_function_gets_reflectance_and_class_numbers_and_its_result_is_trained_on(chips, processor):
    seen = []

    def look(image, mask, random):
        seen.append((image.copy(), mask.copy(), random))
        return swap_classes(image, mask, random)

    plain = SegmentationTransform(processor, 16, "d4", train=True)
    (values, labels), (others, swapped) = (
        draw(chips, transform)
        for transform in (plain, SegmentationTransform(processor, 16, "d4", train=True, custom_augmentation=look))
    )
    mean, std = (torch.tensor(getattr(processor, name))[:, None, None, None] for name in STATISTICS)
    image, mask, random = seen[0]
    assert (image.dtype, image.shape, mask.dtype) == (np.float32, (6, 1, 16, 16), np.int64)
    assert isinstance(random, np.random.Generator)
    np.testing.assert_allclose(image, values[0] * std + mean, atol=1e-6)
    np.testing.assert_array_equal(mask, labels[0])
    torch.testing.assert_close(others * std + mean, 2 * (values * std + mean), atol=1e-5, rtol=0)
    assert torch.equal(swapped, torch.where(labels >= 0, 1 - labels, labels))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda image, mask, random: image, "expected it to return image and mask, found ndarray"),
        (lambda image, mask, random: (image[..., :8], mask), r"expected the image back as an array"),
        (lambda image, mask, random: (image, mask / 1), r"expected the mask back .*found one of float64"),
        (lambda image, mask, random: (image, None), "expected the mask back .*found NoneType"),
        (lambda image, mask, random: (np.log(image - 9), mask), "expected finite values in the image"),
        (lambda image, mask, random: (image, mask + 2), "expected class numbers from 0 to 1 or -100"),
        (lambda image, mask, random: (image, mask)[2], r"IndexError: .* in line \d+ of .*test_augmentations.py"),
        (lambda image: image, "TypeError: .*1 positional argument but 3 were given"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_a_function_may_not_give_is_named(chips, processor, function, message):
    transform = SegmentationTransform(processor, 16, train=True, custom_augmentation=function)
    with pytest.raises(ValueError, match=rf"test_augmentations.<lambda>: {message}"):
        TrainingCrops(chips, transform, 0)[0]


def test_a_dotted_name_is_imported_or_refused():
    assert find_augmentation("tests.data.test_augmentations.add_noise") is add_noise
    for name in ("add_noise", "no_such_module.function", "tests.data.test_augmentations.nothing", ".x", ""):
        with pytest.raises(ValueError, match=r"Expected custom_augmentation as module\.function, found"):
            find_augmentation(name)
    with pytest.raises(ValueError, match="to name a function of"):
        find_augmentation("tests.data.test_augmentations.RARE")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(:", r"invalid syntax in line 1 of .*faulty\.py"),
        ("1 / 0", r"ZeroDivisionError: .* in line 1 of .*faulty\.py"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_by_its_line(tmp_path, monkeypatch, code, message):
    (tmp_path / "faulty.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    with pytest.raises(ValueError, match=f"Expected to import faulty for custom_augmentation, found {message}"):
        find_augmentation("faulty.f")


# ------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"band_gain": (-0.1, 0)},
        {"band_gain": (3.0,)},
        {"band_gain": ()},
        {"band_offset": (0.1, 0.1, 0.1)},
        {"band_offset": (float("nan"),)},
        {"band_noise": -1.0},
        {"band_noise": float("inf")},
        {"band_dropout": 1.0},
        {"frame_dropout": -0.1},
    ],
)
def test_numbers_outside_their_ranges_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))} (as|of)"):
        RadiometricJitter(**options)


def test_what_makes_no_sense_for_the_images_is_refused(processor):
    with pytest.raises(ValueError, match=r"Expected several dates .* found 1"):
        SegmentationTransform(processor, 8, train=True, jitter=RadiometricJitter(frame_dropout=0.5))
    raw = processor.with_options(do_normalize=False)
    with pytest.raises(ValueError, match="Expected several bands that are normalised with band_dropout"):
        SegmentationTransform(raw, 8, train=True, jitter=RadiometricJitter(band_dropout=0.5))
    for jitter in (RadiometricJitter(band_offset=(1e-6,)), RadiometricJitter(band_noise=100.0)):
        with pytest.raises(
            ValueError, match=r"Expected band_(offset|noise) in the units of image_std, whose smallest"
        ):
            SegmentationTransform(processor, 8, train=True, jitter=jitter)
    for options in ({"train": False}, {"train": True, "normalize": False}):
        with pytest.raises(ValueError, match="Expected train=True and normalize=True with jitter"):
            SegmentationTransform(processor, 8, jitter=EVERYTHING, **options)
