# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The report on statistics: numbers that YAML reads as such, and nothing of the data that could become an option."""

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes

from prithvi_hf.data.statistics import BandMoments, DatasetStatistics, LabelProblem, ValueHistogram
from prithvi_hf.data.statistics_report import StatisticsReport, check_readable, write_statistics_plot
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.palette import BAND_COLORS


VALUES = np.array([1.0, 2.0, 5.0])


def make_report(values=VALUES, scale=1.0, processor=None, split=None, **options):
    """One split of one band and two classes."""
    statistics = DatasetStatistics(
        **{"split_name": "train", "chips": 3, "chips_without_mask": 0, "sizes": {(8, 8): 3}, "band_names": ("BLUE",)},
        **{
            "bands": (BandMoments.of(values),),
            "histograms": (ValueHistogram.of(values),),
            "scale": scale,
            "offset": 0.0,
        },
        **{"total_pixels": 192, "nodata_pixels": 0, "infinite_values": (0,), "mask_values": {0: 100, 1: 90, 255: 2}},
        **{"class_pixels": {0: 100, 1: 90}, "class_chips": {0: 3, 1: 3}, "ignored_pixels": 2, "label_problems": ()},
        **{"unreadable": (), "digest": "d" * 64},
    )
    processor = processor or PrithviImageProcessor(bands=["BLUE"], image_mean=[0.0], image_std=[1.0])
    return StatisticsReport({"train": replace(statistics, **(split or {}))}, "train", processor, "chips", **options)


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e22, -0.5])
def test_numbers_are_numbers_in_yaml(scale):
    found = yaml.safe_load(make_report(scale=scale).recipe())
    assert all(isinstance(found[name], float) for name in ("rescale_factor", "rescale_offset"))
    assert found["rescale_factor"] == scale
    assert found["image_mean"] == pytest.approx([VALUES.mean() * scale], rel=1e-5)
    assert found["image_std"] == pytest.approx([VALUES.std() * abs(scale)], rel=1e-5)
    assert all(isinstance(weight, float) for weight in found["class_weights"])


def test_figures_have_the_digits_that_their_spread_needs():
    report = make_report(1e6 + VALUES / 1000)
    assert "image_mean: [1000000.00266667]\nimage_std: [0.00169967]\n" in report.recipe()
    assert "BLUE  1000000.00266667  0.00169967  1000000.001  1000000.005  1.56%" in report.summary()
    assert "BLUE  2.66667  1.69967  1  5  1.56%" in " ".join(make_report().summary().split()).replace(" ", "  ")


@pytest.mark.parametrize(
    ("nodata", "written"), [(None, None), (-9999, -9999.0), ([7.0], 7.0), ([7.0, 8.0], None), (0, 0.0)]
)
def test_what_the_files_were_read_with_is_written(nodata, written):
    options = {"nodata_value": nodata, "ignore_values": [255, -1], "do_reduce_labels": True, "band_indices": [3]}
    processor = PrithviImageProcessor(bands=["BLUE"], image_mean=[0.0], image_std=[1.0], **options)
    found = yaml.safe_load(make_report(processor=processor).recipe())
    assert found.get("nodata_value") == written
    assert (found["ignore_values"], found["do_reduce_labels"], found["band_indices"]) == ([255, -1], True, [3])
    assert "num_frames" not in found
    assert "mask_nodata_labels" not in found


def test_nan_as_nodata_value():
    processor = PrithviImageProcessor(bands=["BLUE"], image_mean=[0.0], image_std=[1.0], nodata_value=math.nan)
    assert math.isnan(yaml.safe_load(make_report(processor=processor).recipe())["nodata_value"])


def test_names_cannot_become_options():
    problem = LabelProblem("a\nmodel: evil\u2028", "values outside the classes", {9: 1})
    split = {"label_problems": (problem,), "unreadable": ("b\nloss: dice",)}
    report = make_report(split=split, class_names=["land\nmodel: evil", "wäter\x1b[2J"])
    assert yaml.safe_load(report.recipe())["class_names"] == ["land\nmodel: evil", "wäter\x1b[2J"]
    assert "wäter" in report.recipe()
    assert not {"model", "loss"} & set(yaml.safe_load(report.recipe()))
    assert "\x1b" not in report.recipe() + report.summary()
    with pytest.raises(ValueError, match="1 of 4 chips") as error:
        check_readable(report.splits)
    assert r"train: b\nloss: dice" in str(error.value)


def test_weights_by_inverse_frequency():
    pixels = [900, 0, 90, 10]
    report = make_report(split={"class_pixels": {0: 900, 2: 90, 3: 10}})
    weights = report.main.class_weights(4)
    assert weights == pytest.approx([1000 / (3 * 900), 1.0, 1000 / (3 * 90), 1000 / (3 * 10)])
    # Averaged over the labelled pixels they are 1, and every class that occurs has the same part in that.
    assert np.dot(weights, pixels) == pytest.approx(1000)
    assert make_report(split={"class_pixels": {}}).main.class_weights(2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("class_pixels", "count"), [({0: 5, 1: 5}, 2), ({0: 5}, None), ({0: 5, 1: 5, 255: 1}, None), ({1: 5, 2: 5}, None)]
)
def test_the_number_of_classes_is_concluded_only_without_a_gap(class_pixels, count):
    report = make_report(split={"class_pixels": class_pixels})
    assert report.num_labels == count
    assert make_report(split={"class_pixels": class_pixels}, class_names=["a", "b", "c"]).num_labels == 3
    assert ("class_weights" in yaml.safe_load(report.recipe())) == (count is not None)


def test_weights_that_differ_much_are_warned_of():
    report = make_report(split={"class_pixels": {0: 100_000, 1: 9}})
    assert any("differ 11,111 times" in text for text in report.warnings())
    check_readable(report.splits)


@pytest.mark.parametrize(
    ("bands", "colors"),
    [
        (("BLUE", "RED", "NIR_NARROW"), ("BLUE", "RED", "NIR_NARROW")),
        (("B11", "B8A", "B03"), ("SWIR_1", "NIR_NARROW", "GREEN")),
        (("swir22", "green", "nir"), ("SWIR_2", "GREEN", "NIR_NARROW")),
        (("VV", "VH"), ("C0", "C1")),  # no colour of their own
    ],
)
def test_bands_are_drawn_in_their_own_colours(tmp_path, monkeypatch, bands, colors):
    found, stairs = [], Axes.stairs
    monkeypatch.setattr(Axes, "stairs", lambda *given, **options: found.append(options) or stairs(*given, **options))
    moments, histograms = (BandMoments.of(VALUES),) * len(bands), (ValueHistogram.of(VALUES),) * len(bands)
    report = make_report(split={"band_names": bands, "bands": moments, "histograms": histograms})
    write_statistics_plot(tmp_path / "plot.png", report)
    assert [options["label"] for options in found] == list(bands)
    assert [options["color"] for options in found] == [BAND_COLORS.get(color, color) for color in colors]


def test_the_plot(tmp_path):
    report = make_report(class_names=["_hidden", "$x"], scale=-2.0)
    write_statistics_plot(tmp_path / "plot.png", report)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    empty = make_report(np.zeros(0), split={"class_pixels": {}, "mask_values": {}})
    write_statistics_plot(tmp_path / "empty.png", empty)
    assert "class_weights are left out: split train has no labelled pixel" in empty.recipe()
    assert "# image_mean: [.nan]" in empty.recipe()
