# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Grids and warped rasters: exact where nothing is resampled, windows equal to the whole, no data kept out."""

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject
from rasterio.warp import transform as transform_points

from prithvi_hf.rasters.derived import BandStack, ScaledRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.rasters.warping import (
    Grid,
    WarpedRaster,
    overlap,
    warp_to,
)
from prithvi_hf.rasters.write_geotiff import write_geotiff


ZONE_10, ZONE_11, DEGREES = CRS.from_epsg(32610), CRS.from_epsg(32611), CRS.from_epsg(4326)
ORIGIN = Affine(30.0, 0.0, 700_000.0, 0.0, -30.0, 4_400_000.0)
SIZE = (70, 90)


def raster(values=None, *, transform=ORIGIN, crs=ZONE_10, **options) -> ArrayRaster:
    if values is None:
        values = np.random.default_rng(0).integers(1, 4000, (2, *SIZE)).astype(np.int16)
    return ArrayRaster(values, crs=crs, transform=transform, **options)


def moved(rows: float, columns: float, factor: float = 1.0) -> Affine:
    return Affine(30 * factor, 0, 700_000 + 30 * columns, 0, -30 * factor, 4_400_000 - 30 * rows)


# Beside the same place in another zone, in degrees, turned, finer and coarser, and reaching out on all sides.
GRIDS = {
    "zone beside": Grid(ZONE_11, Affine(30, 0, 185_400, 0, -30, 4_404_100), 95, 110),
    "degrees": Grid(DEGREES, Affine(0.0003, 0, -120.668, 0, -0.0003, 39.727), 80, 115),
    "turned": Grid(ZONE_10, Affine(26, 15, 699_500, 15, -26, 4_399_600), 90, 100),
    "finer": Grid(ZONE_10, moved(-3.3, 5.7, 0.41), 120, 130),
    "coarser": Grid(ZONE_10, moved(-5.2, -7.1, 2.7), 33, 40),
    "coarse beside": Grid(ZONE_11, Affine(80, 0, 185_400, 0, -80, 4_404_100), 36, 42),
}


def test_a_warp_to_the_same_grid_is_the_raster_itself():
    source = raster()
    assert warp_to(source, Grid.of(source)) is source
    assert warp_to(source, Grid(ZONE_10, moved(0.01, -0.02), *SIZE)) is source
    assert warp_to(source, Grid(ZONE_10, moved(0.2, 0), *SIZE)) is not source


@pytest.mark.parametrize("text", ["+proj=utm +zone=10 +ellps=WGS84 +units=m", "EPSG:32610+5773", "EPSG:26910"])
def test_another_text_for_the_same_crs_changes_no_value(text):
    source, crs = raster(crs=CRS.from_user_input(text)), ZONE_10
    assert source.crs != crs
    assert warp_to(source, Grid(crs, ORIGIN, *SIZE)) is source
    shifted = warp_to(source, Grid(crs, moved(4, -7), *SIZE))
    np.testing.assert_array_equal(shifted.read()[:, :-4, 7:], source.read()[:, 4:, :-7])


def test_utm_counted_from_the_equator_or_from_below_is_the_same_place():
    """Landsat and HLS give places south of the equator in the northern zone, with negative numbers."""
    source = raster(crs=CRS.from_epsg(32733), transform=Affine(30, 0, 500_000, 0, -30, 7_000_000))
    north = Affine(30, 0, 500_000, 0, -30, -3_000_000)
    assert warp_to(source, Grid(CRS.from_epsg(32633), north, *SIZE)) is source
    grid = Grid(CRS.from_epsg(32633), Affine(30, 0, 500_000 + 30 * 5, 0, -30, -3_000_000), *SIZE)
    np.testing.assert_array_equal(warp_to(source, grid).read()[:, :, :-5], source.read()[:, :, 5:])
    assert not Grid(CRS.from_epsg(32634), north, *SIZE).is_same_as(source)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (-4, 7), (20, -30)])
@pytest.mark.parametrize("first", [ORIGIN, Affine(100 / 3, 0, 399960.123456789, 0, -100 / 3, 8400040.98765)])
def test_a_shift_by_whole_pixels_changes_no_value(dtype, rows, columns, first):
    """With numbers that are not exact in binary as well."""
    values = np.random.default_rng(1).uniform(0, 250, (2, *SIZE)).astype(dtype)
    a, _, c, _, e, f = first[:6]
    shifted = Affine(a, 0, c + a * columns, 0, e, f + e * rows)
    warped = WarpedRaster(raster(values, transform=first), Grid(ZONE_10, shifted, *SIZE))
    expected = np.zeros_like(values)
    mask = np.ones(SIZE, dtype=bool)
    here = tuple(slice(max(0, -shift), min(n, n - shift)) for shift, n in zip((rows, columns), SIZE, strict=True))
    there = tuple(slice(max(0, shift), min(n, n + shift)) for shift, n in zip((rows, columns), SIZE, strict=True))
    mask[here] = False
    expected[(slice(None), *here)] = values[(slice(None), *there)]
    found = warped.read()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[:, ~mask], expected[:, ~mask])
    np.testing.assert_array_equal(warped.read_nodata_mask(), mask)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(GRIDS)),
    st.sampled_from(["bilinear", "nearest"]),
    st.sampled_from(["int16", "float32"]),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(0, 3),
)
def test_windows_are_the_same_part_of_the_whole(name, resampling, dtype, place, holes):
    """To the last bit, whatever is missing in the source and wherever it ends."""
    random = np.random.default_rng(holes)
    values = random.integers(1, 4000, (2, *SIZE)).astype(dtype)
    mask = random.random(SIZE) < 0.1 if holes == 2 else None
    if holes:
        values[random.random(values.shape) < 0.1 * holes] = -9999
    grid = GRIDS[name]
    warped = WarpedRaster(raster(values, nodata=-9999, nodata_mask=mask), grid, resampling)
    top, left = int(place[0] * (grid.height - 1)), int(place[1] * (grid.width - 1))
    height = 1 + int(place[2] * (grid.height - top - 1))
    width = 1 + int(place[3] * (grid.width - left - 1))
    part = (slice(top, top + height), slice(left, left + width))
    found = warped.read(bands=[1], window=(top, left, height, width))
    np.testing.assert_array_equal(found, warped.read()[(slice(1, 2), *part)])
    np.testing.assert_array_equal(warped.read_nodata_mask((top, left, height, width)), warped.read_nodata_mask()[part])


def globe() -> ArrayRaster:
    """Half degrees of the whole Earth: the latitude, and the distance to the prime meridian."""
    rows, columns = np.mgrid[:360, :720]
    values = np.stack([89.75 - rows / 2, abs(columns / 2 - 179.75)]).astype(np.float32)
    return raster(values, crs=DEGREES, transform=Affine(0.5, 0, -180, 0, -0.5, 90))


def around_the_date_line() -> ArrayRaster:
    """Hundredths of degrees from 178 E to 178 W: the longitude from 178 to 182, and the latitude."""
    rows, columns = np.mgrid[:300, :400]
    values = np.stack([178.005 + columns / 100, 4.995 - rows / 100])
    return raster(values, crs=DEGREES, transform=Affine(0.01, 0, 178, 0, -0.01, 5))


POLE = Grid(CRS.from_epsg(3995), Affine(12_000, 0, -3.5e6, 0, -12_000, 3.5e6), 583, 583)
DATE_LINE = Grid(CRS.from_epsg(32601), Affine(1000, 0, 50_000, 0, -1000, 500_000), 290, 300)
WIDE = Grid(DEGREES, Affine(0.2, 0, -180, 0, -0.2, 90), 300, 1800)
LARGE = np.random.default_rng(1).integers(1, 4000, (3, 600, 700)).astype(np.int16)


def holed(*options) -> ArrayRaster:
    """Large enough for several blocks; each band lacks other pixels, the second none, by two values and a mask."""
    values = LARGE.copy()
    values[0, ::7, ::5], values[2, :150, :200], values[2, 160::3] = -9999, 0, -9999
    mask = np.zeros(values.shape[1:], dtype=bool)
    mask[300:310] = "mask" in options
    values = values if "float" not in options else np.where(values == 0, np.nan, values).astype(np.float32)
    return raster(values, nodata=-9999, nodata_mask=mask)


KINDS = {
    "pole": lambda: WarpedRaster(globe(), POLE),
    "pole, nearest": lambda: WarpedRaster(globe(), POLE, "nearest"),
    "date line": lambda: WarpedRaster(around_the_date_line(), DATE_LINE),
    "globe of a projection": lambda: WarpedRaster(WarpedRaster(globe(), POLE), WIDE),
    "two nodata values": lambda: WarpedRaster(holed(), BESIDE, nodata_values=[0]),
    "NaN and a mask": lambda: WarpedRaster(holed("float", "mask"), BESIDE),
    "coarser": lambda: WarpedRaster(holed("mask"), BESIDE.with_resolution(83), nodata_values=[0]),
    "much coarser": lambda: WarpedRaster(holed("mask"), BESIDE.with_resolution(700), nodata_values=[0]),
    "finer": lambda: WarpedRaster(holed("mask"), BESIDE.with_resolution(13), nodata_values=[0]),
    "nearest": lambda: WarpedRaster(holed(), BESIDE, "nearest"),
    "10 m beside 20 m": lambda: BandStack(
        [
            raster(LARGE[:1]),
            WarpedRaster(raster(LARGE[1:2, ::2, ::2], transform=moved(0, 0, 2)), Grid.of(raster(LARGE))),
        ],
        ("a", "b"),
        name="stack",
    ),
    "scaled": lambda: WarpedRaster(ScaledRaster(holed("mask"), [0.1] * 3, [-1] * 3, [0]), BESIDE),
    "whole pixels": lambda: WarpedRaster(holed("mask"), Grid(ZONE_10, moved(-20, 33), 500, 690)),
}
BESIDE = Grid(ZONE_11, Affine(30, 0, 180_000, 0, -30, 4_404_000), 700, 800)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_the_same_part_of_the_whole_across_blocks(kind):
    """To the last bit, for single bands as well, around edges of blocks and in random places."""
    warped = KINDS[kind]()
    whole, mask = warped.read(), warped.read_nodata_mask()
    random = np.random.default_rng(0)
    starts = [(250, 250, 12, 12), *([*random.integers(0, 270, 2), *random.integers(1, 400, 2)] for _ in range(6))]
    for top, left, height, width in starts:
        top, left = int(min(top, warped.height - 1)), int(min(left, warped.width - 1))
        window = (top, left, int(min(height, warped.height - top)), int(min(width, warped.width - left)))
        part = (slice(None), slice(top, top + window[2]), slice(left, left + window[3]))
        np.testing.assert_array_equal(warped.read(window=window), whole[part])
        np.testing.assert_array_equal(warped.read([1], window), whole[part][1:2])
        if mask is not None and warped.select([1]).read_nodata_mask() is not None:
            np.testing.assert_array_equal(warped.read_nodata_mask(window), mask[part[1:]])


def test_poles_and_the_date_line_are_places_like_others():
    warped = WarpedRaster(globe(), POLE)
    x, y = np.meshgrid(*[(np.arange(583) + 0.5) * 12_000 - 3.5e6] * 2)
    _, latitudes = (np.reshape(part, x.shape) for part in transform_points(POLE.crs, DEGREES, x.ravel(), -y.ravel()))
    assert not warped.read_nodata_mask().any()
    assert (
        np.abs(warped.read([0])[0] - np.minimum(latitudes, 89.75)).max() < 0.0625
    )  # an eighth of a pixel, as GDAL is content with
    warped = WarpedRaster(around_the_date_line(), DATE_LINE)
    columns, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(290) + 0.5)
    place = (columns * 1000 + 50_000).ravel(), (500_000 - rows * 1000).ravel()
    longitudes, latitudes = (np.reshape(part, rows.shape) for part in transform_points(DATE_LINE.crs, DEGREES, *place))
    inside = (longitudes % 360 > 178.01) & (longitudes % 360 < 181.99) & (latitudes > 2.01) & (latitudes < 4.99)
    assert inside.mean() > 0.9
    assert not warped.read_nodata_mask()[inside].any()
    assert np.abs(warped.read()[0] - longitudes % 360)[inside].max() < 0.001
    assert np.abs(warped.read()[1] - latitudes)[inside].max() < 0.001


@pytest.mark.parametrize("name", ["zone beside", "degrees", "turned", "finer"])
def test_values_agree_with_gdals_warper(name):
    """On a smooth field; where GDAL blurs what it takes for a coarser grid, roughness would tell the two apart."""
    grid = GRIDS[name]
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    values = (20 * rows + 13 * columns + 500).astype(np.float32)[None]
    expected = np.full((1, *grid.size), np.nan, dtype=np.float32)
    reproject(
        values,
        expected,
        src_transform=ORIGIN,
        src_crs=ZONE_10,
        dst_transform=grid.transform,
        dst_crs=grid.crs,
        resampling=Resampling.bilinear,
        tolerance=0,
        init_dest_nodata=False,
    )
    found = WarpedRaster(raster(values), grid).read()
    both = ~np.isnan(expected) & ~np.isnan(found)
    assert both.mean() > 0.3
    assert (np.isnan(expected) != np.isnan(found)).mean() < 0.01
    inner = both[0, 1:-1, 1:-1] & both[0, 2:, 1:-1] & both[0, :-2, 1:-1] & both[0, 1:-1, 2:] & both[0, 1:-1, :-2]
    errors = np.abs(expected - found)[0, 1:-1, 1:-1][inner]
    assert np.median(errors) < 0.2
    assert np.quantile(errors, 0.9) < 1


@pytest.mark.parametrize("name", sorted(GRIDS))
@pytest.mark.parametrize("kind", ["tag", "given", "mask", "nan", "infinity"])
def test_no_data_never_reaches_a_value(name, kind):
    """Fields of 1000 with holes of what stands for no data: every value that comes out is 1000, or is marked."""
    values = np.full((1, *SIZE), 1000, dtype=np.float32 if kind in ("nan", "infinity") else np.int16)
    hole = np.random.default_rng(3).random(SIZE) < 0.3
    values[0, hole] = {"tag": -9999, "given": 0, "mask": 32_000, "nan": np.nan, "infinity": np.inf}[kind]
    source = raster(values, nodata=-9999 if kind == "tag" else None, nodata_mask=hole if kind == "mask" else None)
    warped = WarpedRaster(source, GRIDS[name], nodata_values=[0] if kind == "given" else [])
    found, mask = warped.read()[0], warped.read_nodata_mask()
    missing = {"tag": found == -9999, "given": found == 0, "mask": mask}.get(kind, np.isnan(found))
    assert 0.1 < missing.mean() < 0.95
    assert (missing | (np.abs(found - 1000.0) < 0.01) | mask).all()
    assert not (np.isinf(found)).any()
    if kind != "mask":
        # What the mask adds to the values is the outside alone.
        np.testing.assert_array_equal(missing[mask], True)


def test_masks_and_nearest_values_are_those_of_the_pixel_around_the_centre():
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    mask = values[0] % 5 == 0
    source = raster(values, nodata_mask=mask)
    grid = Grid(ZONE_10, Affine(15, 0, 700_000 - 30, 0, -15, 4_400_000), 6, 12)
    warped = WarpedRaster(source, grid, "nearest", fill=255)
    doubled = np.repeat(np.repeat(values[0], 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(warped.read()[0, :, 2:10], doubled)
    assert (warped.read()[0, :, [0, 1, 10, 11]] == 255).all()
    np.testing.assert_array_equal(warped.read_nodata_mask()[:, 2:10], np.repeat(np.repeat(mask, 2, 0), 2, 1))


def test_a_mean_that_happens_to_be_the_nodata_value_gives_way():
    values = np.array([[[-10, 10, 30]]], dtype=np.int16).repeat(3, axis=1)
    warped = WarpedRaster(raster(values, nodata=0), Grid(ZONE_10, moved(0, 0.5), 3, 2))
    assert warped.read()[0].tolist() == [[1, 20]] * 3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_coarser_pixels_are_means_of_all_that_lies_in_them(factor):
    values = np.random.default_rng(0).uniform(0, 1, (1, 12 * factor, 10 * factor))
    source = raster(values)
    grid = Grid.of(source).with_resolution(30 * factor)
    assert grid.size == (12, 10)
    expected = values.reshape(1, 12, factor, 10, factor).mean(axis=(2, 4))
    np.testing.assert_allclose(WarpedRaster(source, grid).read(), expected, rtol=1e-8)


def test_a_coarser_pixel_is_there_where_half_of_it_is():
    values = np.full((1, 4, 4), 100.0)
    values[0, 0, 0] = values[0, 0, 2:] = values[0, 1, 2] = np.nan
    found = WarpedRaster(raster(values), Grid.of(raster(values)).with_resolution(60)).read()[0]
    assert found[0, 0] == pytest.approx(100)
    assert math.isnan(found[0, 1])
    assert found[1] == pytest.approx([100, 100])


def test_only_what_is_needed_is_read(tmp_path):
    class Counting(GeoTiffRaster):
        windows: list = []

        def read(self, bands=None, window=None):
            self.windows.append(window)
            return super().read(bands, window)

    path = tmp_path / "a.tif"
    write_geotiff(path, np.ones((2, 300, 400), dtype=np.int16), crs=ZONE_10, transform=ORIGIN)
    warped = WarpedRaster(Counting(path), GRIDS["zone beside"])
    warped.read(bands=[1], window=(40, 30, 10, 20))
    assert len(Counting.windows) == 1
    _, _, height, width = Counting.windows[0]
    assert height <= 95 + 8 + 6  # what the block takes, which here is the whole grid
    assert width <= 110 + 8 + 6
    whole = Grid(ZONE_10, moved(2000, 0), 10, 10)
    assert (WarpedRaster(Counting(path), whole).read() == 0).all()
    assert len(Counting.windows) == 1


def test_how_far_two_grids_overlap():
    source = raster()
    assert overlap(Grid.of(source), source) == 1
    assert overlap(Grid(ZONE_10, moved(35, 0), *SIZE), source) == pytest.approx(0.5, abs=0.01)
    assert overlap(Grid(ZONE_10, moved(70, 0), *SIZE), source) == 0
    assert overlap(Grid(ZONE_10, moved(69, 89), *SIZE), source) > 0
    assert overlap(Grid(ZONE_11, GRIDS["zone beside"].transform, 95, 110), source) == pytest.approx(0.6, abs=0.1)
    huge = Grid(ZONE_10, Affine(30, 0, 600_000, 0, -30, 4_500_000), 50_000, 50_000)
    assert 0 < overlap(huge, source) < 1e-4


def test_grids_and_sources_that_cannot_be_warped_are_refused():
    with pytest.raises(ValueError, match="expected frames with a CRS each, or without any"):
        WarpedRaster(raster(crs=None), GRIDS["degrees"])
    with pytest.raises(ValueError, match="resampling: expected 'bilinear' or 'nearest', found 'cubic'"):
        WarpedRaster(raster(), GRIDS["degrees"], "cubic")
    with pytest.raises(ValueError, match="expected a frame that overlaps the grid of the scene"):
        warp_to(raster(), Grid(DEGREES, Affine(0.0003, 0, 10, 0, -0.0003, 50), 80, 115))
    with pytest.raises(ValueError, match="expected a transform from pixels to places"):
        WarpedRaster(raster(transform=Affine(0, 0, 1, 0, 0, 2)), GRIDS["degrees"])


def test_pixels_where_a_projection_has_no_value_are_no_data():
    """The far side of the Earth has no place in a transverse Mercator projection."""
    globe = Grid(DEGREES, Affine(2, 0, -180, 0, -2, 90), 90, 180)
    source = raster(np.full((1, 70, 90), 5, dtype=np.uint8), transform=Affine(1e4, 0, 0, 0, -1e4, 4_800_000))
    warped = WarpedRaster(source, globe)
    mask = warped.read_nodata_mask()
    assert 0 < (~mask).sum() < 200
    np.testing.assert_array_equal(warped.read()[0] == 5, ~mask)


def test_warped_files_are_the_warped_array(tmp_path):
    source = raster(nodata=7)
    path = tmp_path / "a.tif"
    write_geotiff(path, source.read(), crs=ZONE_10, transform=ORIGIN, nodata=7, descriptions=("a", "b"))
    warped = WarpedRaster(GeoTiffRaster(path), GRIDS["degrees"])
    np.testing.assert_array_equal(warped.read(), WarpedRaster(source, GRIDS["degrees"]).read())
    assert (warped.path, warped.descriptions, warped.nodata) == (str(path), ("a", "b"), 7)
    assert warped.select([1]).descriptions == ("b",)
    assert warped.crs == DEGREES
    with rasterio.open(path) as dataset:
        assert dataset.count == warped.count
