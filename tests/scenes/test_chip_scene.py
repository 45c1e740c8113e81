# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips of a scene: pixels, labels and all that a file says as in the scene, splits that share no pixel, resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from prithvi_hf.data.audit import audit_split
from prithvi_hf.data.chip_layout import ChipOptions
from prithvi_hf.data.load import load_dataset
from prithvi_hf.data.statistics import compute_statistics
from prithvi_hf.data.vector_labels import LabelOptions
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.cog import write_class_map
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.scenes.chip_scene import chip_scene
from prithvi_hf.training.recipe import read_recipe
from tests.command_line import folder_contents
from tests.docs.pages import ROOT, read_blocks
from tests.raster_factory import BANDS
from tests.scene_factory import scene_pixels, write_scene
from tests.vector_factory import make_stars, paint, utm_grid, write_features


GRID = utm_grid(230, 310)
NUMBERS = {"barley": 0, "grass": 1, "wheat": 2}
CROP = LabelOptions("crop")
SMALL = ChipOptions(size=32, gap=6, block=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiled scene with a corner of nodata and a band of single missing values, and a GeoPackage of fields."""
    folder = tmp_path_factory.mktemp("place")
    pixels = scene_pixels(*GRID.size)
    pixels[:, :70, :90] = -9999
    pixels[2, 100:110, 100:200] = -9999
    layout = {"crs": GRID.crs, "transform": GRID.transform, "tiled": True, "blockxsize": 64, "blockysize": 64}
    write_scene(folder / "scene.tif", pixels, **layout)
    stars = make_stars(GRID, 12, list(NUMBERS)[::-1])
    write_features(folder / "fields.gpkg", stars)
    return folder, pixels, paint(stars, GRID, NUMBERS)


def make(place, output, chips=SMALL, **options):
    folder, *_ = place
    options = {"label_options": CROP, "show_progress": False, **options}
    return chip_scene(folder / "scene.tif", folder / "fields.gpkg", output, chips=chips, **options)


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "chips"
    return output, make(place, output)


def read_lines(folder):
    return [json.loads(line) for line in (folder / "chips.jsonl").read_text().splitlines()[1:]]


def open_splits(folder):
    recipe = read_recipe(folder / "recipe.yaml")
    options = {**recipe.given["dataset_options"], "cache_dir": str(folder.parent / "cache")}
    return recipe, load_dataset("geotiff_folder", folder, **options)


def test_chips_hold_the_pixels_and_labels_of_their_place_and_all_that_the_scene_says(place, made):
    (_, pixels, labels), (folder, report) = place, made
    written = [line for line in read_lines(folder) if line["status"] == "written"]
    assert report["chips"]["written"] == len(written) > 20
    for line in written:
        row, column, height, width = line["window"]
        part = (..., slice(row, row + height), slice(column, column + width))
        with rasterio.open(folder / "images" / f"{line['id']}.tif") as image:
            np.testing.assert_array_equal(image.read(), pixels[part])
            assert (image.descriptions, image.nodata, image.crs) == (BANDS, -9999, GRID.crs)
            assert image.transform == GRID.transform @ Affine.translation(column, row)
        with rasterio.open(folder / "masks" / f"{line['id']}.tif") as mask:
            np.testing.assert_array_equal(mask.read(1), labels[part])
            assert mask.transform == image.transform
        assert read_class_names(folder / "masks" / f"{line['id']}.tif") == {v: k for k, v in NUMBERS.items()}
        known = labels[part][(pixels[part] != -9999).any(axis=0)]
        assert line["pixels"] == {str(v): int((known == v).sum()) for v in range(3) if (known == v).any()}
    left_out = [line for line in read_lines(folder) if line["status"] == "nodata"]
    assert left_out
    for line in left_out:
        row, column, height, width = line["window"]
        part = (..., slice(row, row + height), slice(column, column + width))
        assert not ((labels[part] != 255) & (pixels[part] != -9999).any(axis=0)).any()


def test_no_pixel_is_in_two_splits_nor_beside_another_one(made):
    folder, report = made
    canvas = np.zeros(GRID.size, dtype=int)
    for line in read_lines(folder):
        if line["status"] == "written":
            row, column, height, width = line["window"]
            part = canvas[row : row + height, column : column + width]
            number = 1 + ["train", "validation", "test"].index(line["split"])
            assert np.isin(part, (0, number)).all()
            part[...] = number
    for down in range(7):
        for across in range(7):
            one, other = canvas[down:, across:], canvas[: GRID.height - down, : GRID.width - across]
            assert ((one == other) | (one == 0) | (other == 0)).all()
    splits = report["splits"]
    assert [splits[name]["chips"] for name in ("train", "validation", "test")] == [
        len((folder / f"{name}.txt").read_text().split()) for name in ("train", "validation", "test")
    ]
    assert all(pixels > 0 for split in splits.values() for pixels in split["classes"].values())


def test_the_recipe_reads_the_chips_and_has_the_statistics_of_those_that_train(made):
    folder, report = made
    recipe, splits = open_splits(folder)
    assert recipe.given["class_names"] == list(NUMBERS)
    assert recipe.given["crop_size"] == 32
    processor = recipe.build_image_processor()
    for name, split in splits.items():
        statistics = compute_statistics(split, processor, 3, name, show_progress=False)
        assert not statistics.label_problems
        found = report["splits"][name]
        assert dict(zip(NUMBERS, map(statistics.class_pixels.__getitem__, range(3)), strict=True)) == found["classes"]
        audit_split(split, processor, 3, name)
    statistics = compute_statistics(splits["train"], processor, 3, "train", show_progress=False)
    np.testing.assert_allclose(recipe.given["image_mean"], statistics.image_mean, rtol=1e-6)
    np.testing.assert_allclose(recipe.given["image_std"], statistics.image_std, rtol=1e-6)


def test_a_run_that_was_killed_continues_and_ends_with_the_same_bytes(place, made, tmp_path):
    (source, *_), (expected, _) = place, made
    output = tmp_path / "chips"
    words = ["chip", source / "scene.tif", source / "fields.gpkg", "--attribute", "crop", "--output", output]
    words += ["--size", "32", "--gap", "6", "--block", "2", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "prithvi_hf.cli", *map(str, words)])
    while process.poll() is None and len(list(output.glob("masks/*.tif"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert not (output / "recipe.yaml").exists()
    early = {path: path.stat().st_mtime_ns for path in output.glob("images/*.tif")}
    noted = {line["id"] for line in read_lines(output) if line["status"] == "written"}
    assert noted
    damaged = output / "images" / f"{min(noted)}.tif"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    (output / "chips.jsonl").write_text((output / "chips.jsonl").read_text() + '{"id": "sce')  # a line half written
    (output / "images" / ".a.tif.1234.tmp").write_bytes(b"half")

    make(place, output)
    contents = folder_contents(output)
    del contents[next(name for name in contents if name.name == ".lock")]
    same = folder_contents(expected)
    del same[next(name for name in same if name.name == ".lock")]
    assert contents.keys() == same.keys()
    assert [name for name in same if contents[name] != same[name]] == []
    kept = [path for path in early if path.stem in noted - {damaged.stem}]
    assert all(path.stat().st_mtime_ns == early[path] for path in kept)


def test_a_finished_folder_is_checked_and_stays_and_any_other_is_refused(place, made, tmp_path):
    folder, report = made
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.tif")}
    assert make(place, folder) == report
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.tif")} == before
    contents = folder_contents(folder)
    with pytest.raises(
        ValueError, match=r"found chips of another scene, other labels or other options.*Several scenes"
    ):
        make(place, folder, ChipOptions(size=40))
    assert folder_contents(folder) == contents
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(ValueError, match=r"expected a new or empty folder, found thesis\.doc"):
        make(place, tmp_path / "mine")


@pytest.mark.slow
def test_chips_of_several_scenes_are_joined_as_the_page_says(tmp_path):
    for seed, name in enumerate(("north", "south")):
        write_scene(
            tmp_path / f"{name}.tif", scene_pixels(*GRID.size, seed=seed), crs=GRID.crs, transform=GRID.transform
        )
        write_features(tmp_path / f"{name}.gpkg", make_stars(GRID, 12, list(NUMBERS)))
    [block] = [one.text for one in read_blocks(ROOT / "docs" / "own-labels.md") if "chips_of_both" in one.text]
    for name in ("north", "south"):
        block = block.replace(f" --output chips_of_{name}", f" --size 32 --gap 6 --quiet --output chips_of_{name}")
    shell = f'set -e\nprithvi-hf() {{ {sys.executable} -m prithvi_hf.cli "$@"; }}\n{block}'
    subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=True)
    parts = [open_splits(tmp_path / name) for name in ("chips_of_north", "chips_of_south")]
    folder = tmp_path / "chips_of_both"
    _, joined = open_splits(folder)
    for name, split in joined.items():
        assert split["id"] == [chip for _, part in parts for chip in part[name]["id"]]
        assert len(set(split["id"])) == len(split)
    found = yaml.safe_load((folder / "stats.yaml").read_text())
    statistics = compute_statistics(joined["train"], PrithviImageProcessor(), 3, "train", show_progress=False)
    np.testing.assert_allclose(found["image_mean"], statistics.image_mean, rtol=1e-3)


def test_scenes_in_strips_and_overlapping_chips_give_the_same_pixels(place, tmp_path):
    source, pixels, labels = place
    write_scene(tmp_path / "scene.tif", pixels, crs=GRID.crs, transform=GRID.transform, blockysize=16)
    chips = ChipOptions(size=48, stride=24, split="none")
    options = {"chips": chips, "label_options": CROP, "show_progress": False}
    chip_scene(tmp_path / "scene.tif", source / "fields.gpkg", tmp_path / "chips", **options)
    written = [line for line in read_lines(tmp_path / "chips") if line["status"] == "written"]
    assert {line["split"] for line in written} == {"train"}
    covered = np.zeros(GRID.size, dtype=bool)
    for line in written:
        row, column, height, width = line["window"]
        part = (..., slice(row, row + height), slice(column, column + width))
        covered[part] = True
        with rasterio.open(tmp_path / "chips" / "images" / f"{line['id']}.tif") as image:
            np.testing.assert_array_equal(image.read(), pixels[part])
    covered[216:] = covered[:, 288:] = True  # less than half a chip
    assert (labels[~covered & (pixels[0] != -9999)] == 255).all()


def test_several_dates_are_files_of_one_chip_with_their_days(place, tmp_path):
    source, pixels, _ = place
    grid = {"crs": GRID.crs, "transform": GRID.transform}
    write_scene(tmp_path / "HLS.S30.T33TWM.2022158T100601.v2.0.tif", pixels, **grid, tags=([0.5] * 6, [2.0] * 6))
    coarse = {**grid, "transform": GRID.transform @ Affine.scale(2)}
    write_scene(tmp_path / "b.tif", scene_pixels(115, 155, seed=1), **coarse)
    frames = [tmp_path / "HLS.S30.T33TWM.2022158T100601.v2.0.tif", tmp_path / "b.tif"]
    options = {"chips": SMALL, "label_options": CROP, "show_progress": False, "scale": "ignore"}
    folder = tmp_path / "chips"
    chip_scene(frames, source / "fields.gpkg", folder, dates=["2022-06-07", "2022-07-10"], **options)
    recipe, splits = open_splits(folder)
    assert recipe.given["num_frames"] == 2
    row = splits["train"][0]
    assert row["dates"] == [date(2022, 6, 7).isoformat(), date(2022, 7, 10).isoformat()]
    first, second = row["image"]
    assert (first.scales, first.offsets, first.nodata) == ((0.5,) * 6, (2.0,) * 6, -9999)
    assert first.transform == second.transform
    window = next(line["window"] for line in read_lines(folder) if line["id"] == row["id"])
    part = (slice(None), slice(window[0], window[0] + 32), slice(window[1], window[1] + 32))
    np.testing.assert_array_equal(first.read(), pixels[part])
    statistics = compute_statistics(splits["train"], recipe.build_image_processor(), 3, "train", show_progress=False)
    np.testing.assert_allclose(recipe.given["image_mean"], statistics.image_mean, rtol=1e-6)


def test_a_file_that_stacks_dates_stays_one_file(place, tmp_path):
    source, pixels, _ = place
    write_scene(tmp_path / "scene.tif", np.concatenate([pixels, pixels]), crs=GRID.crs, transform=GRID.transform)
    options = {"chips": SMALL, "label_options": CROP, "show_progress": False}
    processor = PrithviImageProcessor(num_frames=2)
    folder = tmp_path / "chips"
    chip_scene(tmp_path / "scene.tif", source / "fields.gpkg", folder, image_processor=processor, **options)
    recipe, splits = open_splits(folder)
    assert splits["train"][0]["image"].count == 12
    statistics = compute_statistics(splits["train"], recipe.build_image_processor(), 3, "train", show_progress=False)
    np.testing.assert_allclose(recipe.given["image_std"], statistics.image_std, rtol=1e-6)


def test_the_masks_of_files_go_with_the_chips(place, tmp_path):
    source, pixels, _ = place
    lost = np.zeros(GRID.size, dtype=bool)
    lost[100:140, 100:150] = True
    pixels = np.where(pixels == -9999, 700, pixels).astype(np.int16)
    write_scene(tmp_path / "scene.tif", pixels, crs=GRID.crs, transform=GRID.transform, nodata=None, nodata_mask=lost)
    options = {"chips": SMALL, "label_options": CROP, "show_progress": False}
    chip_scene(tmp_path / "scene.tif", source / "fields.gpkg", tmp_path / "chips", **options)
    _, splits = open_splits(tmp_path / "chips")
    windows = {line["id"]: line["window"] for line in read_lines(tmp_path / "chips")}
    seen = 0
    for row in (row for split in splits.values() for row in split):
        top, left, height, width = windows[row["id"]]
        expected, mask = lost[top : top + height, left : left + width], row["image"].read_nodata_mask()
        assert (mask is None and not expected.any()) or (mask == expected).all()
        seen += expected.any()
    assert seen


def test_a_map_gives_labels_and_min_labelled_leaves_chips_out(place, tmp_path):
    source, _, labels = place
    names = {0: "barley", 1: "grass", 2: "wheat"}
    values = {0: 3, 1: 1, 2: 7}
    layout = {"crs": GRID.crs, "transform": GRID.transform}
    write_class_map(tmp_path / "map.tif", labels, id2label=names, class_values=values, **layout)
    chips = ChipOptions(size=32, gap=6, min_labelled=0.9)
    report = chip_scene(
        source / "scene.tif", tmp_path / "map.tif", tmp_path / "chips", chips=chips, show_progress=False
    )
    assert report["chips"]["unlabelled"] > 0
    lines = [line for line in read_lines(tmp_path / "chips") if line["status"] == "written"]
    assert min(line["labelled"] for line in lines) >= 0.9 * 32**2
    recipe, _ = open_splits(tmp_path / "chips")
    assert recipe.given["class_names"] == ["grass", "barley", "wheat"]  # in the order of the values


def test_names_of_scenes_and_classes_may_be_of_any_letters(place, tmp_path):
    _, pixels, _ = place
    scene = write_scene(tmp_path / 'Müller, "Ost" (1).tif', pixels, crs=GRID.crs, transform=GRID.transform)
    stars = make_stars(GRID, 12, ["Weizen: früh", "no", "- # 'x'"])
    path = write_features(tmp_path / "ä ö.gpkg", stars)
    chip_scene(
        scene, path, tmp_path / "chips", chips=SMALL, label_options=CROP, show_progress=False, dates="2022-06-07"
    )
    recipe, splits = open_splits(tmp_path / "chips")
    assert recipe.given["class_names"] == ["- # 'x'", "Weizen: früh", "no"]
    assert sum(map(len, splits.values())) == len(list((tmp_path / "chips" / "images").iterdir()))


def test_numbers_of_a_vector_file_stay_in_the_masks_and_the_recipe_maps_them(place, tmp_path):
    source, *_ = place
    stars = make_stars(GRID, 12, [30, 10])
    write_features(tmp_path / "codes.gpkg", stars)
    options = {"chips": SMALL, "label_options": CROP, "show_progress": False}
    chip_scene(source / "scene.tif", tmp_path / "codes.gpkg", tmp_path / "chips", **options)
    recipe, splits = open_splits(tmp_path / "chips")
    assert yaml.safe_load((tmp_path / "chips" / "recipe.yaml").read_text())["label_map"] == {10: 0, 30: 1}
    masks = {value for row in splits["train"] for value in np.unique(row["mask"].read()).tolist()}
    assert masks == {10, 30, 255}
    assert compute_statistics(splits["train"], recipe.build_image_processor(), 2, "a").class_pixels.keys() == {0, 1}


def test_chips_of_numbers_without_names_get_names_in_the_recipe(place, tmp_path):
    source, _, labels = place
    with rasterio.open(source / "scene.tif") as scene:
        profile = {**scene.profile, "count": 1, "dtype": "uint8", "nodata": None}
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as mask:
        mask.write(labels, 1)
    chip_scene(source / "scene.tif", tmp_path / "mask.tif", tmp_path / "chips", chips=SMALL, show_progress=False)
    recipe, splits = open_splits(tmp_path / "chips")
    assert recipe.given["class_names"] == ["class 0", "class 1", "class 2"]
    assert not compute_statistics(splits["train"], recipe.build_image_processor(), 3, "train").label_problems


@pytest.mark.parametrize(
    ("chips", "options", "message"),
    [
        ({"size": 400}, {}, "found a side of 400. Give a smaller size"),
        ({"min_labelled": 2}, {}, "min_labelled: expected a fraction"),
        ({"split": "random"}, {}, "split: expected spatial or none"),
        ({"fractions": (1, 1)}, {}, "fractions: expected three"),
        ({"size": 200}, {}, "at least 3 blocks"),
        ({}, {"label_options": LabelOptions("class")}, "an attribute class, found crop"),
        ({}, {"band_map": {"BLUE": "B99"}}, "no band for BLUE"),
    ],
)
def test_what_cannot_be_is_refused(place, tmp_path, chips, options, message):
    with pytest.raises(ValueError, match=message):
        make(place, tmp_path / "chips", ChipOptions(**chips), **options)
    assert not list(tmp_path.rglob("*.gpkg"))
    assert not (tmp_path / "chips" / "recipe.yaml").exists()


def test_two_runs_in_one_folder_do_not_meet(place, tmp_path):
    from filelock import FileLock

    os.makedirs(tmp_path / "chips")
    with FileLock(tmp_path / "chips" / ".lock"), pytest.raises(ValueError, match="expected no other run"):
        make(place, tmp_path / "chips")
