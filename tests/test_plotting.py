# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of `prithvi_hf.plotting` against chips, statistics, evaluations and maps on disk."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from transformers import pipeline

import prithvi_hf.plotting
from prithvi_hf import PrithviConfig, PrithviForPixelRegression, PrithviImageProcessor, predict_scene
from prithvi_hf.data import compute_statistics, load_dataset
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.plotting import (
    plot_band_histograms,
    plot_chips,
    plot_class_balance,
    plot_confusion_matrix,
    plot_learning_curves,
    plot_map,
    plot_reliability,
)
from prithvi_hf.rasters.raster import GeoTiffError
from prithvi_hf.scenes import open_scene
from prithvi_hf.training.chip_figures import make_chip_table, write_chip_figures
from tests.raster_factory import make_land_cover, write_chip, write_mask, write_raster
from tests.scene_factory import LABELS, tiny_model, tiny_processor, write_scene
from tests.training.test_sample_pictures import SIZES


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    root = tmp_path_factory.mktemp("chips")
    for seed in range(3):
        write_chip(root / f"{seed}.tif", 40, seed=seed)
        write_mask(root / f"{seed}_mask.tif", 40, seed=seed)
    return load_dataset("geotiff_folder", root, "train", cache_dir=str(root / "cache"), mask_suffix="_mask.tif")


@pytest.fixture(scope="module")
def statistics(chips):
    return compute_statistics(chips, tiny_processor(ignore_values=[-1]), with_histograms=True, show_progress=False)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def colors_of(figure):
    """Every colour in the picture that a notebook shows."""
    picture = imread(io.BytesIO(figure._repr_png_()))[..., :3]
    return {tuple(color) for color in np.unique((picture.reshape(-1, 3) * 255).round().astype(int), axis=0).tolist()}


# ---------------------------------------------------------------- chips


def test_chips_with_a_model_show_scene_label_prediction_and_errors(chips):
    figure = plot_chips(chips, tiny_processor(ignore_values=[-1]), tiny_model(), samples=2)
    assert titles(figure) == ["scene", "label", "prediction", "errors in red"] * 2
    assert legend(figure)[:3] == list(LABELS.values())
    assert {*class_palette(3, names=list(LABELS.values()))[:2], (205, 38, 38)} <= colors_of(figure)
    without = plot_chips(chips, tiny_processor(ignore_values=[-1]), tiny_model(), samples=[1], errors=False)
    assert titles(without) == ["scene", "label", "prediction"]


def test_chips_without_a_model_show_their_labels(chips):
    processor = tiny_processor(ignore_values=[-1])
    figure = plot_chips(chips, processor, class_names=["land", "water"], class_colors=["#112233", "#445566"])
    assert titles(figure) == ["scene", "label"] * 3
    assert legend(figure)[:2] == ["land", "water"]
    assert {(0x11, 0x22, 0x33), (0x44, 0x55, 0x66)} <= colors_of(figure)
    assert legend(plot_chips(chips, processor))[:2] == ["class 0", "class 1"]
    with pytest.raises(ValueError, match=r"expected labels of 1 classes, found 1. Name all classes"):
        plot_chips(chips, processor, class_names=["land"])


def test_chips_without_masks_show_what_there_is(tmp_path):
    write_chip(tmp_path / "a.tif", 40)
    options = {"cache_dir": str(tmp_path / "cache"), "mask_suffix": "_mask.tif", "require_masks": False}
    dataset = load_dataset("geotiff_folder", tmp_path, "train", **options)
    assert titles(plot_chips(dataset, tiny_processor())) == ["scene"]
    assert titles(plot_chips(dataset, tiny_processor(), tiny_model())) == ["scene", "prediction"]


def test_chips_of_values_have_a_colour_bar(tmp_path):
    write_chip(tmp_path / "a.tif", 40)
    write_raster(tmp_path / "a_agb.tif", np.linspace(0, 50, 1600, dtype=np.float32).reshape(1, 40, 40))
    options = {"cache_dir": str(tmp_path / "cache"), "mask_suffix": "_agb.tif"}
    dataset = load_dataset("geotiff_folder", tmp_path, "train", **options)
    processor = PrithviImageProcessor(label_type="value")
    assert titles(plot_chips(dataset, processor)) == ["scene", "target", ""]
    torch.manual_seed(0)
    model = PrithviForPixelRegression(PrithviConfig(**SIZES, target_name="biomass", target_unit="Mg/ha")).eval()
    figure = plot_chips(dataset, processor, model)
    assert titles(figure)[:4] == ["scene", "target", "prediction", "too high in red, too low in blue"]
    assert figure.axes[-1].get_ylabel() == "biomass (Mg/ha)"


def test_chips_that_have_a_label_as_a_whole_show_it(tmp_path):
    root = make_land_cover(tmp_path / "data", {"train": 2})
    dataset = load_dataset("geotiff_classification", root, "train", cache_dir=str(tmp_path / "cache"))
    assert titles(plot_chips(dataset, PrithviImageProcessor())) == [row["label"] for row in dataset]


# ---------------------------------------------------------------- statistics


def test_bands_are_drawn_before_and_after_the_normalisation_of_the_processor(statistics):
    before, after = plot_band_histograms(statistics).axes
    assert before.get_title() == "before, split train"
    low, high = after.get_xlim()
    assert -4 < low < 0 < high < 4
    means = [mean - 10 * std for mean, std in zip(statistics.image_mean, statistics.image_std, strict=True)]
    shifted = tiny_processor(image_mean=means, image_std=statistics.image_std)
    low, high = plot_band_histograms(statistics, shifted).axes[1].get_xlim()
    assert 6 < low < 10 < high < 14  # ten standard deviations away


def test_statistics_that_do_not_fit_are_refused(statistics):
    with pytest.raises(ValueError, match="with_histograms=True"):
        plot_band_histograms(replace(statistics, histograms=()))
    with pytest.raises(ValueError, match="Measure them with this image processor"):
        plot_band_histograms(replace(statistics, band_names=("A", "B", "C", "D", "E", "F")), tiny_processor())
    with pytest.raises(ValueError, match="at least one split"):
        plot_class_balance({})


def test_the_balance_of_one_split_and_of_several(statistics):
    [axes] = plot_class_balance(statistics, ["land", "water"]).axes
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(1)
    [axes] = plot_class_balance({"train": statistics, "test": replace(statistics, class_pixels={0: 1})}).axes
    assert [bar.get_width() for bar in axes.containers[1]] == [1, 0]


# ---------------------------------------------------------------- evaluations


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """A file with the figures of two splits, of two classes."""
    count = np.arange(2 * 30).reshape(2, 30) + 1
    columns = {
        "loss": np.array([0.5, 0.4]),
        "loss_weight": np.array([10, 10]),
        "label_digest": np.array([1, 2]),
        "pixels": np.array([10, 10]),
        "confusion": np.array([[6, 2, 0, 2], [3, 1, 4, 2]]),
        "bin_count": count,
        "bin_correct": count // 2,
        "bin_confidence": count * 0.7,
    }
    about = {"task": "segmentation", "chips": ["a", "b"], "class_names": ["land", "$water$"]}
    tables = [make_chip_table(columns, split="validation", prefix="eval", **about)]
    tables.append(
        make_chip_table({**columns, "confusion": np.array([[5, 0, 0, 0]] * 2)}, split="test", prefix="test", **about)
    )
    path = tmp_path_factory.mktemp("figures") / "chip_figures.parquet"
    write_chip_figures(path, tables)
    return path


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_confusion_matrix_is_that_of_the_split(evaluations):
    figure = plot_confusion_matrix(evaluations, split="validation")
    assert texts(figure) == ["75.0%\n9", "25.0%\n3", "50.0%\n4", "50.0%\n4"]
    assert titles(figure)[0] == "validation: % and pixels"
    assert texts(plot_confusion_matrix(evaluations, split="eval")) == texts(figure)  # the prefix of its metrics
    last = plot_confusion_matrix(evaluations.parent)  # the folder of a run
    assert texts(last) == ["100.0%\n10", "0.0%\n0"]  # nothing is labelled as the other class
    figure._repr_png_()


def test_a_confusion_matrix_of_many_classes_and_of_chips():
    figure = plot_confusion_matrix(np.eye(12, dtype=int) * 7)
    assert texts(figure)[:2] == ["100", "0"]
    columns = {"loss": np.zeros(3), "loss_weight": np.ones(3, int), "label_digest": np.zeros(3, int)}
    columns |= {"logits": np.array([[1.0, 0], [0, 1], [0, 1]]), "labels": np.array([[0.0], [0], [1]])}
    table = make_chip_table(columns, task="classification", split="test", prefix="test", chips=["a", "b", "c"])
    assert texts(plot_confusion_matrix(table, ["forest", "river"])) == ["50.0%\n1", "50.0%\n1", "0.0%\n0", "100.0%\n1"]
    assert titles(plot_confusion_matrix(table))[0] == "test: % and chips"


def test_a_matrix_that_is_none_is_refused(evaluations, tmp_path):
    for matrix in (np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0)), np.full((2, 2), -1)):
        with pytest.raises(ValueError, match="square matrix of counts"):
            plot_confusion_matrix(matrix)
    with pytest.raises(ValueError, match="names of 2 classes, found 1"):
        plot_confusion_matrix(np.eye(2), ["land"])
    with pytest.raises(ValueError, match="a split among validation, test, found 'bolivia'"):
        plot_confusion_matrix(evaluations, split="bolivia")
    with pytest.raises(FileNotFoundError, match="prithvi-hf evaluate --chip_figures"):
        plot_confusion_matrix(tmp_path)
    columns = {"loss": np.zeros(1), "loss_weight": np.ones(1, int), "label_digest": np.zeros(1, int)}
    columns |= {"error_sums": np.ones((1, 6))}
    table = make_chip_table(columns, task="regression", split="test", prefix="test", chips=["a"])
    with pytest.raises(ValueError, match="one class per pixel or chip, found regression"):
        plot_confusion_matrix(table)
    with pytest.raises(ValueError, match="found those of a regression without"):
        plot_reliability(table)


def test_the_reliability_of_a_split(evaluations):
    figure = plot_reliability(evaluations, "validation")
    assert [title.split("\n")[0] for title in titles(figure)[:3]] == ["all classes", "land", r"\$water\$"]
    assert figure.get_suptitle() == "validation"


def test_curves_are_those_of_a_run_of_any_task(tmp_path):
    history = [{"step": 1, "loss": 0.9, "learning_rate": 1e-3}, {"step": 2, "eval_loss": 0.8, "eval_rmse": 4.0}]
    figure = plot_learning_curves(history)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "RMSE", "learning rate"]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert titles(plot_learning_curves(tmp_path)) == titles(figure)
    for text in ("{", "{}", '{"log_history": 3}', '{"log_history": [{"loss": 1}]}'):
        (tmp_path / "trainer_state.json").write_text(text)
        with pytest.raises(ValueError, match=r"trainer_state\.json"):
            plot_learning_curves(tmp_path)
    with pytest.raises(FileNotFoundError, match="Give the folder of a training"):
        plot_learning_curves(tmp_path / "elsewhere")


# ---------------------------------------------------------------- maps


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif")


def test_a_map_of_the_pipeline_has_its_scene_with_it(scene):
    pipe = pipeline("geospatial-segmentation", model=tiny_model(), image_processor=tiny_processor(), device="cpu")
    figure = plot_map(pipe(str(scene)))
    assert titles(figure) == ["scene", "classes"]
    assert legend(figure)[:3] == list(LABELS.values())


def test_a_map_that_was_written_has_the_names_and_colours_in_its_file(scene, tmp_path):
    model = tiny_model(class_colors=["#aa5500", "#0000fe", "#7fff7f"])
    values = {0: 10, 1: 20, 2: 30}
    result = predict_scene(
        model, tiny_processor(), scene, tmp_path / "map.tif", class_values=values, confidence=True, show_progress=False
    )
    assert titles(plot_map(result)) == ["classes"]
    figure = plot_map(tmp_path / "map.tif", scene, tiny_processor())
    assert titles(figure) == ["scene", "classes"]
    assert legend(figure)[:3] == list(LABELS.values())
    present = {index for index in np.unique(result.mask).tolist() if index != 255}
    wanted = [(0xAA, 0x55, 0), (0, 0, 0xFE), (0x7F, 0xFF, 0x7F)]
    assert {wanted[index] for index in present} <= colors_of(figure)
    assert titles(plot_map(result, open_scene(scene, tiny_processor()), tiny_processor())) == titles(figure)
    values = plot_map(result.outputs["confidence"])
    assert titles(values)[0] == "values"
    assert values.axes[-1].get_ylabel() == "confidence"


def test_a_mask_without_names_takes_those_given(tmp_path):
    write_raster(tmp_path / "mask.tif", np.array([[[0, 1], [1, 255]]], np.uint8), nodata=255)
    assert legend(plot_map(tmp_path / "mask.tif"))[:2] == ["0", "1"]
    assert legend(plot_map(tmp_path / "mask.tif", class_names=["land", "water"]))[:2] == ["land", "water"]
    with pytest.raises(ValueError, match="names of the classes explain, found 1 too"):
        plot_map(tmp_path / "mask.tif", class_names=["land"])


def test_files_that_are_not_the_map_of_the_scene_are_refused(scene, tmp_path):
    write_raster(tmp_path / "mask.tif", np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="Give the scene of this map"):
        plot_map(tmp_path / "mask.tif", scene, tiny_processor())
    with pytest.raises(ValueError, match="give the model's"):
        plot_map(tmp_path / "mask.tif", scene)
    with pytest.raises(ValueError, match="one band, found 6 bands"):
        plot_map(scene)
    with pytest.raises(GeoTiffError, match="found a file that cannot be read"):
        plot_map(tmp_path / "absent.tif")
    (tmp_path / "cut.tif").write_bytes(scene.read_bytes()[:600])
    with pytest.raises(GeoTiffError, match="cannot be read"):
        plot_map(tmp_path / "cut.tif")


def test_every_function_is_listed():
    named = {name for name in vars(prithvi_hf.plotting) if name.startswith("plot_")}
    assert named == set(prithvi_hf.plotting.__all__)
