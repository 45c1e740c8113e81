# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf stats`: a recipe that recipes take, what it says about the data, and nothing written on errors."""

import json
import os
import re

import numpy as np
import pytest
import rasterio
import yaml

from prithvi_hf.cli import __main__ as cli
from prithvi_hf.cli.__main__ import main
from prithvi_hf.cli.stats import name_bands
from prithvi_hf.data import load_dataset
from prithvi_hf.data.load import detect_dataset
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.training.recipe import parse_arguments, read_recipe
from tests.raster_factory import (
    BANDS,
    SEN1FLOODS11_CODES,
    class_mask,
    cut_off,
    labels,
    make_biomass,
    make_burn_scars,
    make_crops,
    make_folder,
    make_irrigation_scenes,
    make_land_cover,
    make_sen1floods11,
    reflectance,
    write_chip,
    write_raster,
)


@pytest.fixture(autouse=True)
def quiet_terminal(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def chips(tmp_path):
    """Four training chips and two for validation, each with its mask."""
    folder = tmp_path / "chips"
    make_folder(folder, "abcd", image="train/{}.tif", mask="train/{}_mask.tif")
    make_folder(folder, "ef", image="val/{}.tif", mask="val/{}_mask.tif")
    return folder


def run(folder, *arguments, options=None, cache=None):
    """The command, with the table of `datasets` cached beside the data."""
    options = {"image_suffix": ".tif", "mask_suffix": "_mask.tif"} if options is None else options
    options = {**options, "cache_dir": str(cache or folder.parent / "cache")}
    words = ["stats", folder, "--dataset_options", json.dumps(options), *arguments]
    return cli.main([str(word) for word in words])


def run_to_file(folder, *arguments, status=0, **options):
    """The recipe that is written, as text."""
    output = folder.parent / "stats.yaml"
    assert run(folder, "--output", output, *arguments, **options) == status
    return output.read_text(encoding="utf-8")


def refused(capsys, folder, message, *arguments, **options):
    """The command ends with 2 and a message, and writes nothing."""
    before = sorted(os.listdir(folder.parent))
    assert run(folder, *arguments, "--output", folder.parent / "stats.yaml", **options) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert "Traceback" not in output.err
    assert set(os.listdir(folder.parent)) <= {*before, "cache"}
    return output.err


def train_pixels(seeds=range(4)):
    return np.stack([reflectance(6, seed=seed) for seed in seeds]).astype(np.float64)


def test_the_recipe_holds_the_statistics(chips, tmp_path):
    text = run_to_file(chips, "--ignore_values", -1, "--rescale_factor", 0.0001, "--rescale_offset", -0.1, "--quiet")
    recipe = read_recipe(tmp_path / "stats.yaml")
    values = train_pixels() * 1e-4 - 0.1
    assert recipe.data.image_mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-5)
    assert recipe.data.image_std == pytest.approx(values.std((0, 2, 3)).tolist(), rel=1e-5)
    assert (recipe.data.bands, recipe.data.ignore_values) == (list(BANDS), [-1])
    assert (recipe.data.rescale_factor, recipe.data.rescale_offset) == (0.0001, -0.1)
    masks = np.stack([labels(seed=seed) for seed in range(4)])
    counts = np.array([(masks == 0).sum(), (masks == 1).sum()])
    assert recipe.model.class_weights == pytest.approx((counts.sum() / (2 * counts)).tolist(), rel=1e-5)
    assert "nodata_value" not in recipe.given
    for part in ("geotiff_folder in", "train       4", "validation  2", "BLUE", "100.00%", "(ignored)"):
        assert part in text


def test_the_statistics_normalise_the_chips(chips, tmp_path):
    """End to end: measured, written, read as a recipe, applied by the processor that the recipe describes."""
    for seed, chip in enumerate("abcd"):
        pixels = (np.linspace(500, 3000, 6)[:, None, None] + 0.02 * reflectance(6, seed=seed)).astype(np.float32)
        pixels[:, :5], pixels[0, 7] = -9999, np.nan
        write_raster(chips / "train" / f"{chip}.tif", pixels, descriptions=BANDS)
    run_to_file(chips, "--nodata_value", -9999, "--ignore_values", -1, "--rescale_factor", 0.0001, "--quiet")
    processor = read_recipe(tmp_path / "stats.yaml").build_image_processor()
    options = {"image_suffix": ".tif", "mask_suffix": "_mask.tif", "cache_dir": str(tmp_path / "cache")}
    dataset = load_dataset("geotiff_folder", chips, split="train", **options)
    inputs = processor([row["image"] for row in dataset], return_nodata_mask=True, return_tensors="pt")
    assert inputs["nodata_mask"].sum() == 4 * 5 * 32
    values = inputs["pixel_values"][:, :, 0, 5:].double()
    for band in range(6):
        valid = values[:, band] if band else values[:, 0, [0, 1, *range(3, 27)]]
        assert float(valid.mean()) == pytest.approx(0, abs=1e-4)
        assert float(valid.std(correction=0)) == pytest.approx(1, rel=1e-4)


def test_a_recipe_of_ones_own_comes_first(chips, tmp_path):
    """--config my.yaml, measured, and then trained with --config my.yaml stats.yaml."""
    options = {"image_suffix": ".tif", "mask_suffix": "_mask.tif", "cache_dir": str(tmp_path / "cache")}
    own = {
        **{"dataset": "geotiff_folder", "dataset_options": options, "class_names": ["land", "no"]},
        **{"bands": ["RED", "SWIR_2"], "image_mean": [1.0] * 6, "image_std": [2.0] * 6, "ignore_values": [-1]},
        **{"rescale_factor": 0.5, "learning_rate": 0.25, "class_weights": [3.0, 4.0]},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(own))
    words = ["stats", chips, "--config", tmp_path / "my.yaml", "--output", tmp_path / "stats.yaml", "--quiet"]
    assert cli.main([*map(str, words), "--rescale_factor", "0.25"]) == 0
    both = [str(tmp_path / "my.yaml"), str(tmp_path / "stats.yaml")]
    recipe = parse_arguments(["--config", *both, "--output_dir", str(tmp_path / "out")])
    expected = train_pixels()[:, [2, 5]].mean((0, 2, 3)) * 0.25
    assert recipe.data.image_mean == pytest.approx(expected.tolist(), rel=1e-5)
    assert (recipe.data.rescale_factor, recipe.data.class_names) == (0.25, ["land", "no"])
    assert recipe.training.learning_rate == 0.25
    assert recipe.model.class_weights == pytest.approx([1, 1], rel=0.1)
    assert recipe.build_image_processor().bands == ["RED", "SWIR_2"]


def test_recipe_on_stdout_summary_on_stderr(chips, capsys):
    for seed, chip in enumerate("ef", start=10):  # other pixels than those of training
        write_chip(chips / "val" / f"{chip}.tif", seed=seed)
    assert run(chips, "--ignore_values", -1) == 0
    output = capsys.readouterr()
    assert yaml.safe_load(output.out)["bands"] == list(BANDS)
    assert "Bands of split train" in output.err
    assert "Measuring train" in output.err
    assert run(chips, "--ignore_values", -1, "--quiet") == 0
    output = capsys.readouterr()
    assert len(yaml.safe_load(output.out)["image_mean"]) == 6
    assert output.err == ""


def test_the_split_is_chosen(chips, capsys, tmp_path):
    run_to_file(chips, "--split", "validation", "--quiet")
    expected = train_pixels(range(2)).mean((0, 2, 3))
    assert read_recipe(tmp_path / "stats.yaml").data.image_mean == pytest.approx(expected.tolist(), rel=1e-5)
    (tmp_path / "stats.yaml").unlink()
    refused(capsys, chips, "expected one of the splits train, validation", "--split", "test")


def test_sen1floods11(tmp_path):
    root = make_sen1floods11(tmp_path / "floods")
    text = run_to_file(root, "--dataset", "sen1floods11", "--config", "sen1floods11", "--quiet", options={})
    recipe = read_recipe(tmp_path / "stats.yaml")
    assert recipe.data.band_indices == [1, 2, 3, 8, 11, 12]
    assert recipe.data.class_names == ["no water", "water"]
    values = np.stack([reflectance(13, seed=seed) for seed in range(3)])[:, [1, 2, 3, 8, 11, 12]] * 1e-4
    assert recipe.data.image_mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-5)
    assert all(split in text for split in ("train", "validation", "test", "bolivia"))


# ----------------------------------------------------------------- labels


def test_bad_labels_are_all_in_the_file_and_the_first_on_screen(chips, capsys):
    ids = [f"m{index:02d}" for index in range(13)]
    make_folder(chips, ids, image="train/{}.tif", mask="train/{}_mask.tif")
    for index, chip in enumerate(ids):
        mask = labels()
        mask[4, : index + 1] = 200 + index
        write_raster(chips / "train" / f"{chip}_mask.tif", mask)
    write_raster(chips / "val" / "e_mask.tif", labels(size=16))
    text = run_to_file(chips, "--ignore_values", -1, "--class_names", "land", "water", status=1)
    assert "class_weights" not in yaml.safe_load(text)
    for index, chip in enumerate(ids):
        found = f"train: {chips}/train/{chip}_mask.tif: values outside the classes: {200 + index} ({index + 1} pixel"
        assert found in text
    assert "validation: " in text
    assert "e_mask.tif: expected the image's size 32 x 32, found 16 x 16" in text
    screen = capsys.readouterr()
    assert "Masks that training would refuse: 14" in screen.out
    assert "train: values outside the classes in 10 more masks" in screen.out
    assert "m00_mask.tif" in screen.out
    assert "m12_mask.tif" not in screen.out
    (error,) = [line for line in screen.err.splitlines() if "error" in line]
    assert "13 of 19 masks hold values that are not a class" in error
    assert "m02_mask.tif and 10 more): expected mask values 0 to 1 (2 classes), found 200 (1 pixel)" in error


@pytest.mark.parametrize(
    ("values", "names", "advice", "options"),
    [
        ([0, 1, 2, 3], "abc", "do_reduce_labels=True", ["--do_reduce_labels"]),
        ([0, 255], "ab", "label_map={255: 1}", ["--label_map", '{"255": 1}']),
        ([10, 20, 30], "abc", "label_map={10: 0, 20: 1, 30: 2}", ["--label_map", '{"10": 0, "20": 1, "30": 2}']),
        ([-1, 0, 1], "abc", "label_map={-1: 0, 0: 1, 1: 2}", ["--label_map", '{"-1": 0, "0": 1, "1": 2}']),
        ([0, 100], "ab", "label_map={100: 1}", ["--label_map", '{"100": 1}']),
        ([0, 1, 255], "ab", "add 255 to ignore_values", ["--ignore_values", "255"]),
    ],
)
def test_masks_of_other_values_are_told_what_fits_once_and_it_does(chips, capsys, values, names, advice, options):
    for folder, ids in (("train", "abcd"), ("val", "ef")):
        for seed, chip in enumerate(ids):
            mask = class_mask(values, seed=seed, dtype="int16")
            write_raster(chips / folder / f"{chip}_mask.tif", mask)
    text = run_to_file(chips, "--class_names", *names, status=1)
    assert "class_weights" not in yaml.safe_load(text)
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "6 of 6 masks hold values" in error
    assert advice in error
    found = yaml.safe_load(run_to_file(chips, "--class_names", *names, *options, "--quiet"))
    assert len(found["class_weights"]) == len(names)
    assert str(found.get("label_map")).replace(" ", "") in advice.replace(" ", "") or "label_map" not in advice


def test_equal_images_in_two_splits_are_a_warning_with_the_names(chips, capsys):
    for index, chip in enumerate("ef"):
        write_chip(chips / "val" / f"{chip}.tif", seed=20 + index)
    run(chips, "--ignore_values", -1, "--output", chips.parent / "s.yaml")
    assert "share" not in capsys.readouterr().err
    with rasterio.open(chips / "train" / "b.tif") as source:  # the same pixels in another file
        profile = {**source.profile, "compress": "lzw", "nodata": -1}
        with rasterio.open(chips / "val" / "e.tif", "w", **profile) as copy:
            copy.write(source.read())
            copy.descriptions = source.descriptions
    run(chips, "--ignore_values", -1, "--output", chips.parent / "s.yaml")
    assert "Splits train and validation share 1 image with equal pixels: b as e." in capsys.readouterr().err


def test_values_that_leave_the_classes_open_give_no_weights(chips):
    mask = labels()
    mask[0, 0] = 255
    write_raster(chips / "val" / "e_mask.tif", mask)
    text = run_to_file(chips, "--ignore_values", -1, "--quiet")
    assert "class_weights" not in yaml.safe_load(text)
    assert "# class_weights are left out: the labels (0, 1, 255) are not 0, 1, ... n" in text
    assert "class_weights" in yaml.safe_load(run_to_file(chips, "--ignore_values", -1, 255, "--quiet"))


def test_nan_as_nodata_value(chips, tmp_path):
    run_to_file(chips, "--nodata_value", "nan", "--quiet")
    assert np.isnan(read_recipe(tmp_path / "stats.yaml").build_image_processor().nodata_value)


@pytest.mark.parametrize(
    ("loss", "warned"),
    [(None, False), ("focal", False), ("cross_entropy+masked_dice", False), ("dice", True), ("masked_dice", True)],
)
def test_weights_are_for_losses_that_they_suit(chips, tmp_path, capsys, loss, warned):
    (tmp_path / "own.yaml").write_text(f"bands: [{', '.join(BANDS)}]\n" + (f"loss: {loss}\n" if loss else ""))
    text = run_to_file(chips, "--ignore_values", -1, "--config", tmp_path / "own.yaml", "--quiet")
    assert len(yaml.safe_load(text)["class_weights"]) == 2
    joined = text.replace("\n# ", " ")
    assert "keeps the size of cross entropy and focal loss. A Dice loss" in joined
    for said in (joined, capsys.readouterr().err):
        assert (f"The loss is {loss}, which weights make larger: delete class_weights" in said) == warned


def test_many_mask_values_on_screen(chips, capsys):
    mask = np.arange(32 * 32).reshape(32, 32) % 25
    mask[0, :2] = (240, 255)
    write_raster(chips / "train" / "a_mask.tif", mask.astype(np.int16))
    names = [f"kind {index}" for index in range(25)]
    run_to_file(chips, "--ignore_values", -1, "--class_names", *names, status=1)
    screen = capsys.readouterr().out
    table = screen[screen.index("Mask values") :].split("\n\n")[0]
    assert "kind 18 " in table  # the twentieth value, -1 being the first
    assert "kind 19" not in table
    assert [line.split()[0] for line in table.splitlines() if "(not a class)" in line] == ["240", "255"]
    assert "and 6 more values" in table


def test_a_mask_elsewhere_names_its_file_once(chips):
    write_raster(chips / "val" / "e_mask.tif", labels(), crs="EPSG:32630")
    text = run_to_file(chips, "--ignore_values", -1, "--quiet")
    line = next(line for line in text.splitlines() if "expected the CRS of" in line)
    assert f"validation: {chips}/val/e_mask.tif: expected the CRS of {chips}/val/e.tif (EPSG:4326), found" in line
    assert line.count("e_mask.tif") == 1


def test_links_to_nowhere_are_named(chips, capsys):
    (chips / "train" / "a.tif").unlink()
    (chips / "train" / "a.tif").symlink_to("/elsewhere/a.tif")
    refused(capsys, chips, "train/a.tif: expected a GeoTIFF file, found a link to /elsewhere/a.tif", "--quiet")


def test_infinite_values_are_counted(chips, capsys):
    pixels = reflectance(6).astype(np.float32)
    pixels[1, 0, :3] = np.inf
    pixels[1, 1, 0], pixels[3, 5, 5] = -np.inf, np.nan
    write_raster(chips / "train" / "a.tif", pixels, descriptions=BANDS)
    run_to_file(chips, "--ignore_values", -1)
    assert "Infinite values, which count as missing: GREEN 4\n" in capsys.readouterr().out


def test_an_absent_class_is_said(chips, capsys):
    text = run_to_file(chips, "--ignore_values", -1, "--class_names", "land", "water", "snow")
    weights = yaml.safe_load(text)["class_weights"]
    assert weights[2] == 1.0
    assert "has no pixel of snow" in text
    assert "warning: Split train has no pixel of snow" in capsys.readouterr().err


def test_chips_without_masks(tmp_path):
    folder = tmp_path / "chips"
    make_folder(folder, "ab", mask=None)
    text = run_to_file(folder, "--quiet", options={"image_suffix": ".tif", "require_masks": False})
    assert "# class_weights are left out: split train has no labelled pixel." in text
    assert len(yaml.safe_load(text)["image_std"]) == 6


# ----------------------------------------------------------------- bands


def test_a_constant_band_gives_no_statistics(chips, capsys, tmp_path):
    for chip in "abcd":
        pixels = reflectance(6)
        pixels[4] = 7
        write_raster(chips / "train" / f"{chip}.tif", pixels, descriptions=BANDS)
    text = run_to_file(chips, "--ignore_values", -1)
    assert not {"image_mean", "image_std"} & set(yaml.safe_load(text))
    assert "SWIR_1 is constant (7 in every valid pixel)" in " ".join(text.split("\n# "))
    assert "# image_std: [" in text
    assert "warning: image_mean and image_std are left out" in capsys.readouterr().err
    assert read_recipe(tmp_path / "stats.yaml").build_image_processor().bands == list(BANDS)
    rest = [band for band in BANDS if band != "SWIR_1"]
    assert len(yaml.safe_load(run_to_file(chips, "--bands", *rest, "--quiet"))["image_std"]) == 5


def test_large_means_are_written_with_the_digits_that_their_spread_needs(chips):
    pixels = (1e6 + 0.01 * reflectance(6)[0] / 4000)[None].repeat(6, 0)
    for chip in "abcd":
        write_raster(chips / "train" / f"{chip}.tif", pixels.astype(np.float64), descriptions=BANDS)
    found = yaml.safe_load(run_to_file(chips, "--quiet"))
    assert found["image_mean"][0] == pytest.approx(pixels.mean(), abs=1e-5 * pixels.std())
    assert found["image_std"][0] == pytest.approx((pixels - 1e6).std(), rel=1e-5)


def test_stacks_of_dates(tmp_path):
    folder = tmp_path / "chips"
    frames = [reflectance(6, seed=seed) for seed in range(3)]
    write_raster(folder / "a.tif", np.concatenate(frames))
    write_raster(folder / "a_mask.tif", labels())
    run_to_file(folder, "--bands", *BANDS, "--num_frames", 3, "--ignore_values", -1, "--quiet")
    recipe = read_recipe(tmp_path / "stats.yaml")
    assert recipe.data.num_frames == 3
    assert recipe.data.image_mean == pytest.approx(np.stack(frames).mean((0, 2, 3)).tolist(), rel=1e-5)


def test_a_file_a_date(tmp_path):
    folder = tmp_path / "chips"
    for seed, month in enumerate(("june", "july")):
        write_chip(folder / f"a_{month}.tif", seed=seed)
    write_raster(folder / "a_mask.tif", labels())
    options = {"image_suffix": ["_june.tif", "_july.tif"], "mask_suffix": "_mask.tif"}
    text = run_to_file(folder, "--num_frames", 2, "--ignore_values", -1, "--quiet", options=options)
    assert yaml.safe_load(text)["image_mean"] == pytest.approx(
        train_pixels(range(2)).mean((0, 2, 3)).tolist(), rel=1e-5
    )


def test_bands_without_names_are_refused(tmp_path, capsys):
    folder = tmp_path / "chips"
    make_folder(folder, "a")
    write_raster(folder / "a.tif", reflectance(18))
    message = "found 18 bands without. Name the bands with --bands"
    refused(capsys, folder, message, "--num_frames", 3)


def test_names_of_bands(tmp_path):
    def names(descriptions):
        pixels = reflectance(len(descriptions), size=4)
        return name_bands(GeoTiffRaster(write_raster(tmp_path / "x.tif", pixels, descriptions=descriptions)))

    assert names(SEN1FLOODS11_CODES)[7:10] == ["NIR_BROAD", "NIR_NARROW", "WATER_VAPOR"]
    assert names(["Blue (B02)", "slope", "NIR"]) == ["BLUE", "slope", "NIR"]
    for descriptions, message in ((["RED", "RED"], "RED twice"), (["RED", None], "bands 2 of 2 without")):
        with pytest.raises(ValueError, match=message):
            names(descriptions)


# ----------------------------------------------------------------- files and options


def test_unreadable_chips_stop_the_command_after_the_pass(chips, capsys, tmp_path):
    cut_off(chips / "train" / "b.tif", 0.5)
    (chips / "val" / "f_mask.tif").write_bytes(b"MM\0*" + b"\xff" * 99)
    error = refused(capsys, chips, "2 of 6 chips cannot be read, so nothing is written", "--quiet")
    assert "b.tif" in error
    assert "f_mask.tif" in error
    assert "--skip_unreadable" in error
    text = run_to_file(chips, "--skip_unreadable", "--ignore_values", -1, "--quiet")
    assert "# Chips that could not be read and are not counted: 2" in text
    assert "b.tif: expected a GeoTIFF" in text
    expected = train_pixels([0, 2, 3]).mean((0, 2, 3))
    assert read_recipe(tmp_path / "stats.yaml").data.image_mean == pytest.approx(expected.tolist(), rel=1e-5)


def test_names_of_files_cannot_become_options(tmp_path, capsys):
    """A line break in a file's name would end the comment that it stands in."""
    folder = tmp_path / "chips"
    name = "a\nmodel: evil\x1b[2J\u2028"
    make_folder(folder, ["b"])
    mask = labels()
    mask[0, 0] = 9
    write_chip(folder / f"{name}.tif")
    write_raster(folder / f"{name}_mask.tif", mask)
    text = run_to_file(folder, "--ignore_values", -1, "--class_names", "land", "water", status=1)
    assert "model" not in yaml.safe_load(text)
    assert r"a\nmodel: evil\x1b[2J\u2028_mask.tif" in text
    assert "\x1b" not in capsys.readouterr().out


def test_the_plot(chips, tmp_path):
    plot = tmp_path / "plot.png"
    run_to_file(chips, "--ignore_values", -1, "--plot", plot, "--quiet")
    content = plot.read_bytes()
    assert content.startswith(b"\x89PNG")
    width = int.from_bytes(content[16:20], "big")
    assert width > 1000


def test_options_that_cannot_be(chips, capsys, tmp_path):
    refused(capsys, chips, "does not exist", "--plot", tmp_path / "none" / "plot.png")
    refused(capsys, chips, "found", "--plot", tmp_path / "stats.yaml")
    refused(capsys, chips, "no_such.yaml", "--config", tmp_path / "no_such.yaml")
    refused(capsys, chips, "NIR", "--bands", "NIR", "NIR")
    refused(capsys, chips, "rescale_factor", "--rescale_factor", 0)
    refused(capsys, chips, "num_frames: expected at least 1 date, found 0", "--num_frames", 0)
    refused(capsys, chips, "Expected a name that ends in .png for the plot", "--plot", tmp_path / "plot.pdf")
    refused(capsys, tmp_path / "nowhere", "nowhere")
    assert cli.main(["stats", str(chips), "--dataset_options", "suffix"]) == 2
    assert "JSON object" in capsys.readouterr().err


def test_interruption_leaves_nothing(chips, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("prithvi_hf.data.statistics.compute_statistics", interrupt)
    assert run(chips, "--output", chips.parent / "stats.yaml") == 130
    assert not (chips.parent / "stats.yaml").exists()


# ---------------------------------------------------------------- public datasets


@pytest.mark.parametrize(
    ("make", "name", "frames"),
    [
        (make_sen1floods11, "sen1floods11", None),
        (make_burn_scars, "hls_burn_scars", None),
        (make_irrigation_scenes, "hls_irrigation_scenes", 3),
        (make_crops, "multi_temporal_crop", 3),
    ],
)
def test_a_public_dataset_is_known_by_its_files(tmp_path, capsys, make, name, frames):
    root = make(tmp_path / "data")
    assert detect_dataset(root) == name
    assert main(["stats", str(root), "--output", str(tmp_path / "stats.yaml")]) == 0
    assert f"by the recipe {name}; --config takes another" in capsys.readouterr().err
    values = yaml.safe_load((tmp_path / "stats.yaml").read_text())
    assert values.get("num_frames") == frames
    assert values["class_names"] == read_recipe(name).data.class_names
    assert len(values["class_weights"]) == len(values["class_names"])
    merged = parse_arguments(["--config", name, str(tmp_path / "stats.yaml"), "--output_dir", str(tmp_path / "out")])
    assert merged.data.image_mean == values["image_mean"]
    assert merged.data.dataset == name


# ---------------------------------------------------------------------- other tasks


def test_values_of_a_regression_are_measured(tmp_path, capsys):
    root = make_biomass(tmp_path / "chips", {"train": 3, "validation": 2}, dtype="uint16")
    options = json.dumps({"image_suffix": "_image.tif", "mask_suffix": "_agb.tif", "cache_dir": str(tmp_path / "c")})
    command = ["stats", root, "--task", "regression", "--target_rescale_factor", 0.1, "--dataset_options", options]
    assert main([*map(str, command), "--plot", str(tmp_path / "a.png")]) == 0
    recipe, screen = capsys.readouterr()
    values = [rasterio.open(path).read(1)[1:] * 0.1 for path in sorted((root / "train").glob("*_agb.tif"))]
    written = yaml.safe_load(recipe)
    assert written["task"] == "regression"
    assert written["target_rescale_factor"] == 0.1
    assert written["target_mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert written["target_std"] == pytest.approx(np.std(values), rel=1e-5)
    assert "class_weights" not in recipe
    assert "Values that are learned" in screen
    (tmp_path / "stats.yaml").write_text(recipe)
    assert read_recipe(tmp_path / "stats.yaml").model.target_mean == written["target_mean"]


def test_a_raster_of_values_of_another_size_is_refused(tmp_path, capsys):
    root = make_biomass(tmp_path / "chips", {"train": 2})
    write_raster(root / "train" / "1_agb.tif", np.ones((8, 8), np.float32))
    options = json.dumps({"image_suffix": "_image.tif", "mask_suffix": "_agb.tif", "cache_dir": str(tmp_path / "c")})
    assert main(["stats", str(root), "--task", "regression", "--dataset_options", options]) == 1
    assert "expected the image's size 32 x 32, found 8 x 8" in capsys.readouterr().err


def test_labels_of_chips_are_counted(tmp_path, capsys):
    root = make_land_cover(tmp_path / "chips", {"train": 6, "test": 3})
    options = json.dumps({"cache_dir": str(tmp_path / "c")})
    command = ["stats", root, "--task", "classification", "--dataset", "geotiff_classification"]
    assert main([*map(str, command), "--dataset_options", options]) == 0
    recipe, screen = capsys.readouterr()
    assert re.search(r"Forest +2 +1\n", screen)
    assert "image_mean" in yaml.safe_load(recipe)
    assert "class_weights" not in recipe
