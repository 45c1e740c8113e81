# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Histograms of bands and bars of classes against the statistics that they are drawn of."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from prithvi_hf import PrithviImageProcessor
from prithvi_hf.data import compute_statistics, load_dataset
from prithvi_hf.data.statistics_charts import draw_band_histograms, draw_class_balance
from tests.raster_factory import write_chip, write_mask


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    root = tmp_path_factory.mktemp("chips")
    for seed in range(2):
        write_chip(root / f"{seed}.tif", 40, seed=seed)
        write_mask(root / f"{seed}_mask.tif", 40, seed=seed)
    dataset = load_dataset("geotiff_folder", root, "train", cache_dir=str(root / "cache"), mask_suffix="_mask.tif")
    processor = PrithviImageProcessor(rescale_factor=0.0001, nodata_value=-9999, ignore_values=[-1])
    return compute_statistics(dataset, processor, with_histograms=True, show_progress=False)


def read_stairs(axes):
    """Edges and heights of each histogram."""
    return [(patch.get_data().edges, patch.get_data().values) for patch in axes.patches]


def test_the_area_of_a_histogram_is_1_before_and_after_normalisation(statistics):
    figure = Figure()
    before, after = figure.subplots(1, 2)
    draw_band_histograms(before, statistics)
    draw_band_histograms(after, statistics, (statistics.image_mean, statistics.image_std))
    assert len(read_stairs(before)) == len(read_stairs(after)) == 6
    for edges, density in [*read_stairs(before), *read_stairs(after)]:
        assert (density * np.diff(edges)).sum() == pytest.approx(1)
    for edges, density in read_stairs(after):
        middles = (edges[1:] + edges[:-1]) / 2
        assert (density * np.diff(edges) * middles).sum() == pytest.approx(0, abs=0.02)
        assert (density * np.diff(edges) * middles**2).sum() == pytest.approx(1, abs=0.02)


def test_bars_are_the_fractions_of_the_labelled_pixels(statistics):
    axes = Figure().subplots()
    draw_class_balance(axes, {"train": statistics}, ["land", "$water", "_snow"])
    total = sum(statistics.class_pixels.values())
    wanted = [statistics.class_pixels.get(label, 0) / total for label in range(3)]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(wanted)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["land", r"\$water", "snow"]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 3  # a colour for each class
    assert axes.get_legend() is None


def test_several_splits_are_side_by_side(statistics):
    axes = Figure().subplots()
    other = replace(statistics, class_pixels={0: 30, 1: 10})
    draw_class_balance(axes, {"train": statistics, "test": other})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]
    assert [bar.get_width() for bar in axes.containers[1]] == pytest.approx([0.75, 0.25])
    places = [[bar.get_y() for bar in bars] for bars in axes.containers]
    assert all(first < second for first, second in zip(*places, strict=True))
