# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Several frames as one: medians, the clearest date, and the grid that they share."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from prithvi_hf.rasters.composite import CompositeRaster, cut_windows, find_common_grid
from prithvi_hf.rasters.raster import ArrayRaster


ZONES = [CRS.from_epsg(32610), CRS.from_epsg(32611)]


def make_frames(count=3, size=(5, 7), missing=0.4, seed=0):
    """Frames of two bands, of which some pixels are masked, NaN in one band or in both."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 2, *size)).astype(np.float32)
    values[random.random((count, 2, *size)) < missing / 2] = np.nan
    masks = random.random((count, *size)) < missing
    frames = [ArrayRaster(one, nodata_mask=mask) for one, mask in zip(values, masks, strict=True)]
    return frames, np.where(masks[:, None], np.nan, values)


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_a_median_is_that_of_the_clear_values(count, missing, seed):
    frames, values = make_frames(count, missing=missing, seed=seed)
    composed, counts = CompositeRaster(frames, "median", "a").compose((0, 0, 5, 7))
    expected = np.full(composed.shape, np.nan)
    for place in np.ndindex(composed.shape):
        clear = values[(slice(None), *place)]
        clear = clear[~np.isnan(clear)]
        expected[place] = np.median(clear) if len(clear) else np.nan
    np.testing.assert_allclose(composed, expected, rtol=1e-6)
    np.testing.assert_array_equal(counts, (~np.isnan(values).all(axis=1)).sum(axis=0))


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_the_clearest_date_gives_all_bands_of_a_pixel(count, missing, seed):
    frames, values = make_frames(count, missing=missing, seed=seed)
    composed, _ = CompositeRaster(frames, "clearest", "a").compose((0, 0, 5, 7))
    clear = ~np.isnan(values).all(axis=1)
    order = sorted(range(count), key=lambda index: -(~np.isnan(values[index, 0])).sum())  # by the first band
    for row, column in np.ndindex(5, 7):
        first = next((index for index in order if clear[index, row, column]), None)
        wanted = np.full(2, np.nan) if first is None else values[first, :, row, column]
        np.testing.assert_array_equal(composed[:, row, column], wanted)


@pytest.mark.parametrize("method", ["median", "clearest"])
def test_a_window_is_part_of_the_whole(method):
    frames, _ = make_frames(4, (40, 50))
    raster = CompositeRaster(frames, method, "a")
    whole = raster.read()
    assert (whole.dtype, np.isnan(raster.nodata)) == (np.float32, True)
    np.testing.assert_array_equal(raster.read([1], (3, 5, 20, 30)), whole[[1], 3:23, 5:35])
    np.testing.assert_array_equal(raster.select(window=(3, 5, 20, 30)).read(), whole[:, 3:23, 5:35])
    assert raster.provenance == {"method": method}
    assert raster.sources == tuple(frames)


def test_infinite_values_are_missing():
    frames = [ArrayRaster(np.full((1, 1, 1), value, dtype=np.float32)) for value in (np.inf, 0.25)]
    assert CompositeRaster(frames, "median", "a").read().item() == 0.25


def test_frames_that_do_not_fit_together_are_refused():
    frames, _ = make_frames(1)
    others, _ = make_frames(1, (5, 8))
    with pytest.raises(ValueError, match=r"a: expected frames of one grid and the same bands"):
        CompositeRaster([*frames, *others], "median", "a")
    with pytest.raises(ValueError, match=r"expected frames of one grid .* found none"):
        CompositeRaster([], "median", "a")
    with pytest.raises(ValueError, match="method: expected one of median, clearest, found 'mean'"):
        CompositeRaster(frames, "mean", "a")


@pytest.mark.parametrize("size", [(1, 1), (512, 512), (513, 3000)])
def test_windows_cover_everything_once(size):
    seen = np.zeros(size, dtype=int)
    for row, column, height, width in cut_windows((0, 0, *size), 64):
        seen[row : row + height, column : column + width] += 1
        assert row % 512 == 0
    assert (seen == 1).all()


def place(left, top, size=(10, 20), side=30.0, crs=ZONES[0]):
    return ArrayRaster(np.zeros((1, *size), np.float32), crs=crs, transform=Affine(side, 0, left, 0, -side, top))


def test_the_common_grid_covers_all_in_the_pixels_of_the_first():
    grid = find_common_grid([place(300, 900), place(600, 960), place(300, 900)])
    assert (grid.crs, grid.size) == (ZONES[0], (12, 30))
    assert tuple(grid.transform)[:6] == (30, 0, 300, 0, -30, 960)
    first = place(300, 900)
    assert find_common_grid([first, first]).is_same_as(first)
    odd = find_common_grid([place(300, 900), place(307, 893)])  # on other pixels
    assert odd.size == (11, 21)
    beside = find_common_grid([place(700_000, 4_400_000), place(185_000, 4_402_000, crs=ZONES[1])])
    assert beside.crs == ZONES[0]
    assert 10 < beside.height < 400


def test_frames_without_a_common_grid_are_refused():
    with pytest.raises(ValueError, match="expected frames with a CRS on grids that are not turned"):
        find_common_grid([place(300, 900), place(600, 900, crs=None)])
    with pytest.raises(ValueError, match="found some so far apart"):
        find_common_grid([place(300, 900), place(300_000, 900_000)])
