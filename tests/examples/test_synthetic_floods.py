# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The synthetic flood scenes: repeatable, georeferenced, balanced, and beyond the reach of an index threshold."""

import numpy as np
import pytest
import rasterio

from examples.synthetic_floods import (
    BANDS,
    NODATA,
    SPECTRA,
    best_index_threshold_iou,
    generate_dataset,
    generate_scene,
    random_field,
)
from prithvi_hf.data import load_dataset


@pytest.fixture(scope="module")
def scenes():
    return [generate_scene(96, 96, seed) for seed in range(48)]


@pytest.fixture(scope="module")
def images(scenes):
    return [scene.image for scene in scenes]


@pytest.fixture(scope="module")
def masks(scenes):
    return [scene.mask for scene in scenes]


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floods")
    return generate_dataset(folder, 3, 1, 2, chip_size=48, seed=5, show_progress=False, scene_size=(64, 80))


def pair(image, mask):
    """One image (6, N) and mask (N,) as a chip of one row."""
    return [np.asarray(image, np.int16)[:, None]], [np.asarray(mask)[None]]


def test_a_seed_gives_one_scene():
    first, again, other = (generate_scene(64, 48, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert (first.crs, first.transform) == (again.crs, again.transform)
    assert (first.image != other.image).mean() > 0.9


def test_arrays_have_the_documented_form(scenes):
    for scene in scenes:
        assert scene.image.shape == (6, 96, 96)
        assert scene.image.dtype == np.int16
        assert scene.mask.shape == (96, 96)
        assert scene.mask.dtype == np.int16
        assert set(np.unique(scene.mask)) <= {-1, 0, 1}
        seen = scene.image[scene.image != NODATA]
        assert seen.min() >= 1
        assert seen.max() <= 16000


def test_grid_is_30_metres_of_a_utm_zone(scenes):
    for scene in scenes:
        crs, t = rasterio.CRS.from_string(scene.crs), scene.transform
        assert 32601 <= crs.to_epsg() <= 32660
        assert (t.a, t.b, t.d, t.e) == (30, 0, 0, -30)
        assert t.c % 30 == 0
        assert t.f % 30 == 0
        assert 166_000 < t.c < 834_000


def test_nodata_is_a_wedge_in_all_bands_without_label(scenes):
    wedges = 0
    for scene in scenes:
        nodata = scene.image == NODATA
        np.testing.assert_array_equal(nodata.any(0), nodata.all(0))
        assert (scene.mask[nodata[0]] == -1).all()
        if not nodata.any():
            continue
        wedges += 1
        widths = nodata[0].sum(1)
        assert len(set(widths.tolist())) > 5, "a slanted edge, not a column"
        # Each row's nodata is one run that touches the same side.
        side = nodata[0] if nodata[0][:, 0].any() else nodata[0][:, ::-1]
        np.testing.assert_array_equal(side, np.arange(96) < widths[:, None])
    assert 4 <= wedges <= 22


def test_thick_cloud_has_no_label(scenes):
    cloudy = [scene for scene in scenes if ((scene.mask == -1) & (scene.image[0] != NODATA)).sum() > 500]
    assert len(cloudy) > 5
    for scene in cloudy:
        cloud = (scene.mask == -1) & (scene.image[0] != NODATA)
        assert np.median(scene.image[0][cloud]) > 4000
        assert np.median(scene.image[0][cloud]) > 2 * np.median(scene.image[0][scene.mask >= 0])


def test_classes_are_balanced(scenes, masks):
    labelled = np.concatenate([mask[mask >= 0] for mask in masks])
    assert 0.25 < labelled.mean() < 0.45
    both = [{0, 1} <= set(np.unique(mask)) for mask in masks]
    assert np.mean(both) > 0.95
    assert np.mean([(mask < 0).mean() for mask in masks]) < 0.25


def test_mask_lies_on_the_water_of_the_image(scenes):
    """Water absorbs short-wave infrared: correctly placed labels part the classes better than shifted ones."""

    def contrast(scene, shift):
        mask = np.roll(scene.mask, shift, (0, 1))
        seen = scene.image[5] != NODATA
        return np.mean(scene.image[5][(mask == 0) & seen]) - np.mean(scene.image[5][(mask == 1) & seen])

    in_place = [contrast(scene, (0, 0)) for scene in scenes]
    assert np.mean(in_place) > 300
    for shift in ((6, 0), (-6, 0), (0, 6), (0, -6), (3, 3)):
        moved = [contrast(scene, shift) for scene in scenes]
        assert np.mean(in_place) > np.mean(moved)
        assert np.mean(np.greater(in_place, moved)) > 0.7


def test_water_comes_in_coherent_shapes(masks):
    """A pixel agrees with its neighbour nearly everywhere, so that tokens of 16 pixels can tell the shapes."""
    disagree = [
        (mask[:, 1:] != mask[:, :-1])[(mask[:, 1:] >= 0) & (mask[:, :-1] >= 0)].mean()
        for mask in masks
        if (mask >= 0).sum() > 2000
    ]
    assert np.mean(disagree) < 0.03


def test_no_index_threshold_solves_the_scenes(images, masks):
    baselines = best_index_threshold_iou(images, masks)
    assert len(baselines) == 6 + 15 + 2
    scores = [baseline.mean_iou for baseline in baselines.values()]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) < 0.78
    for name in ("MNDWI", "NDWI", "NIR_NARROW", "SWIR_1", "SWIR_2", "AWEI_nsh"):
        assert baselines[name].mean_iou < 0.78
    # The scenes are plausible: the index that was made for water is still much better than calling everything land.
    assert baselines["MNDWI"].mean_iou > 0.55
    assert baselines["MNDWI"].water_above
    assert not baselines["SWIR_1"].water_above


def test_several_bands_together_tell_more_than_any_index(images, masks):
    """Nearest neighbours in all six bands, from other scenes, beat every threshold: there is something to learn."""
    rng = np.random.default_rng(0)

    def sample(chosen, size):
        pixels = np.concatenate([image[:, mask >= 0] for image, mask in chosen], 1).T / 10000
        labels = np.concatenate([mask[mask >= 0] for _, mask in chosen])
        index = rng.choice(len(labels), size, replace=False)
        return np.log(np.maximum(pixels[index], 0.003)), labels[index]

    chips = list(zip(images, masks, strict=True))
    known, known_labels = sample(chips[:32], 6000)
    asked, asked_labels = sample(chips[32:], 2000)
    distance = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    called = known_labels[np.argpartition(distance, 9, axis=1)[:, :9]].mean(1) > 0.5
    iou = [((called == c) & (asked_labels == c)).sum() / ((called == c) | (asked_labels == c)).sum() for c in (0, 1)]
    assert np.mean(iou) > max(b.mean_iou for b in best_index_threshold_iou(images[32:], masks[32:]).values()) + 0.05


def test_best_threshold_by_hand():
    """Green 1..6 with the water at the upper end and one stray: the best cut calls 4, 5 and 6 water."""
    image = np.full((6, 6), 100)
    image[1] = [100, 200, 300, 400, 500, 600]
    best = best_index_threshold_iou(*pair(image, [0, 1, 0, 1, 1, 1]))["GREEN"]
    assert best.water_above
    assert best.threshold == pytest.approx(0.04)
    assert best.water_iou == pytest.approx(3 / 4)
    assert best.land_iou == pytest.approx(2 / 3)
    assert best.mean_iou == pytest.approx(17 / 24)


def test_best_threshold_where_water_lies_below():
    image = np.full((6, 4), 100)
    image[4] = [50, 60, 700, 800]
    best = best_index_threshold_iou(*pair(image, [1, 1, 0, 0]))["SWIR_1"]
    assert not best.water_above
    assert best.mean_iou == 1
    assert 0.006 <= best.threshold < 0.07


def test_equal_values_are_not_parted():
    """A constant band calls every pixel the same: land 0 and water 1 / 4, or the other way round."""
    best = best_index_threshold_iou(*pair(np.full((6, 4), 100), [0, 0, 0, 1]))
    assert {round(b.mean_iou, 6) for b in best.values()} == {0.125}


def test_pixels_without_label_do_not_count():
    image = np.full((6, 6), 100)
    image[1] = [100, 200, 900, 400, 500, NODATA]
    best = best_index_threshold_iou(*pair(image, [0, 0, -1, 1, 1, -100]))["GREEN"]
    assert best.mean_iou == 1


@pytest.mark.parametrize("label", [0, 1, -1])
def test_baseline_of_one_class_is_refused(label):
    with pytest.raises(ValueError, match="land and of water"):
        best_index_threshold_iou(*pair(np.full((6, 4), 100), [label] * 4))


def test_spectra_are_plausible():
    values = {name: dict(zip(BANDS, spectrum, strict=True)) for name, spectrum in SPECTRA.items()}
    assert all(0 < reflectance < 1 for spectrum in SPECTRA.values() for reflectance in spectrum)
    assert values["dense_crop"]["NIR_NARROW"] > 5 * values["dense_crop"]["RED"]
    assert values["dense_crop"]["GREEN"] > values["dense_crop"]["RED"]
    assert values["dry_soil"]["SWIR_1"] > 1.5 * values["wet_soil"]["SWIR_1"]
    for water in ("clear_water", "turbid_water"):
        assert values[water]["SWIR_1"] < 0.03
    assert values["turbid_water"]["RED"] > 3 * values["clear_water"]["RED"]
    assert values["snow"]["GREEN"] > 5 * values["snow"]["SWIR_1"]


def test_random_field_has_its_statistics_and_length():
    rng = np.random.default_rng(0)
    smooth, fine = random_field(rng, 400, 500, 40), random_field(rng, 400, 500, 5)
    for field in (smooth, fine):
        assert field.shape == (400, 500)
        assert field.dtype == np.float32
        assert abs(field.mean()) < 0.4
        assert 0.7 < field.std() < 1.3
    step_of_smooth, step_of_fine = (np.abs(np.diff(field)).mean() for field in (smooth, fine))
    assert step_of_fine > 4 * step_of_smooth
    # Opposite borders are strangers, though the transform that makes the field is periodic.
    assert np.abs(smooth[:, 0] - smooth[:, -1]).mean() > 5 * np.abs(smooth[:, 0] - smooth[:, 1]).mean()


@pytest.mark.parametrize("arguments", [(31, 64, 0), (64, 16, 0), (64, 64, -1)])
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected height and width"):
        generate_scene(*arguments)


def test_dataset_files(dataset_folder):
    names = sorted(str(path.relative_to(dataset_folder)) for path in dataset_folder.rglob("*") if path.is_file())
    chips = ["test/chip_0000", "test/chip_0001", "train/chip_0000", "train/chip_0001", "train/chip_0002"]
    chips = [*chips, "validation/chip_0000", "scene"]
    expected = [f"{chip}_image.tif" for chip in chips[:-1]] + [f"{chip}_mask.tif" for chip in chips] + ["scene.tif"]
    assert names == sorted(expected)


def test_files_carry_bands_nodata_and_place(dataset_folder):
    for image_path in dataset_folder.rglob("*.tif"):
        if image_path.stem.endswith("_mask"):
            continue
        mask_path = image_path.with_name(image_path.stem.removesuffix("_image") + "_mask.tif")
        with rasterio.open(image_path) as image, rasterio.open(mask_path) as mask:
            assert image.descriptions == BANDS
            assert image.dtypes == ("int16",) * 6
            assert image.nodata == -9999
            assert mask.count == 1
            assert mask.nodata == -1
            assert (image.crs, image.transform, image.shape) == (mask.crs, mask.transform, mask.shape)
            assert image.crs.is_projected


def test_files_hold_the_generated_pixels(tmp_path):
    scene = generate_scene(40, 56, 3)
    scene.write(tmp_path / "image.tif", tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "image.tif") as image, rasterio.open(tmp_path / "mask.tif") as mask:
        np.testing.assert_array_equal(image.read(), scene.image)
        np.testing.assert_array_equal(mask.read(1), scene.mask)
        assert image.crs.to_string() == scene.crs
        assert image.transform == scene.transform


def test_splits_load_and_share_no_chip(dataset_folder, tmp_path):
    dataset = load_dataset(
        "geotiff_folder", dataset_folder, image_suffix="_image.tif", mask_suffix="_mask.tif", cache_dir=str(tmp_path)
    )
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 3, "validation": 1, "test": 2}
    contents = [row["image"].read().tobytes() for rows in dataset.values() for row in rows]
    assert len(set(contents)) == 6


def test_dataset_is_repeatable_and_seeds_differ(dataset_folder, tmp_path):
    options = {"chip_size": 48, "show_progress": False, "scene_size": (64, 80)}
    for seed in (5, 6):
        generate_dataset(tmp_path / str(seed), 1, 0, 0, seed=seed, **options)
    for name in ("scene.tif", "train/chip_0000_image.tif"):
        contents = [(folder / name).read_bytes() for folder in (dataset_folder, tmp_path / "5", tmp_path / "6")]
        assert contents[0] == contents[1]
        assert contents[0] != contents[2]


def test_dataset_is_not_mixed_with_another(dataset_folder, tmp_path):
    generate_dataset(tmp_path, 2, 0, 0, chip_size=32, show_progress=False, scene_size=(32, 32))
    generate_dataset(tmp_path, 2, 0, 0, chip_size=32, show_progress=False, scene_size=(32, 32))
    with pytest.raises(FileExistsError, match=r"chip_0001.*Choose another folder"):
        generate_dataset(tmp_path, 1, 0, 0, chip_size=32, show_progress=False, scene_size=(32, 32))
