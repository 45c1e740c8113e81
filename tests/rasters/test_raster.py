# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What all rasters have in common: bands and windows, reads in threads and processes; arrays."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.pixel_values_prithvi import is_raster
from prithvi_hf.rasters.derived import BandStack, MaskedRaster, ScaledRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import (
    ArrayRaster,
    Raster,
    describe_raster,
    find_degrees,
    is_same_crs,
    measure_shift,
    name_crs_pair,
)
from prithvi_hf.rasters.warping import Grid, WarpedRaster, overlap
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, write_scene


NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")


def array_raster(**options) -> ArrayRaster:
    return ArrayRaster(scene_pixels(), **{"crs": CRS_UTM, "transform": TRANSFORM, "nodata": -9999, **options})


def band_files(folder, pixels=None, **options) -> list[GeoTiffRaster]:
    pixels = scene_pixels() if pixels is None else pixels
    return [
        GeoTiffRaster(write_scene(folder / f"{name}.tif", pixels[band : band + 1], **options))
        for band, name in enumerate(NAMES)
    ]


def stack(folder, **options) -> BandStack:
    return BandStack(band_files(folder, **options), NAMES, name="granule")


def every_kind(folder) -> dict[str, object]:
    mask = np.random.default_rng(0).random((72, 90)) < 0.3
    flags = ArrayRaster(mask[None].astype(np.uint8) * 2)
    return {
        "file": GeoTiffRaster(write_scene(folder / "a.tif")),
        "array": array_raster(nodata_mask=mask),
        "stack": stack(folder),
        "masked": MaskedRaster(array_raster(), flags, 2),
        "scaled": ScaledRaster(array_raster(), [0.5] * 6, range(6)),
        "warped": _warped(folder),
    }


def _warped(folder) -> WarpedRaster:
    """A file of the zone beside on the grid of the others."""
    place = Affine(10.0, 0.0, 1_047_400.0, 0.0, -10.0, 8_394_100.0)
    source = GeoTiffRaster(write_scene(folder / "beside.tif", crs=CRS.from_epsg(32719), transform=place))
    grid = Grid(CRS_UTM, TRANSFORM, 72, 90)
    assert 0.5 < overlap(grid, source) < 1
    return WarpedRaster(source, grid)


def test_all_kinds_have_the_interface_of_a_geotiff(tmp_path):
    for raster in every_kind(tmp_path).values():
        assert is_raster(raster)
        assert isinstance(raster, Raster)
        assert raster.shape == (6, 72, 90)
        assert raster.crs == CRS_UTM
        assert raster.transform == TRANSFORM
        assert len(raster.scales) == len(raster.offsets) == len(raster.descriptions) == raster.count == 6
        assert raster.read().dtype == raster.dtype
        assert "72, 90" in repr(raster)
        assert np.asarray(raster).shape == raster.shape


def test_windows_and_bands_are_parts_of_the_whole(tmp_path):
    for raster in every_kind(tmp_path).values():
        whole, mask = raster.read(), raster.read_nodata_mask()
        part = raster.select([4, 0, 2], (10, 20, 30, 40)).select([2, 0], (5, 6, 7, 8))
        assert part.shape == (2, 7, 8)
        np.testing.assert_array_equal(part.read(), whole[[2, 4], 15:22, 26:34])
        np.testing.assert_array_equal(raster.read([5], (1, 2, 3, 4)), whole[[5], 1:4, 2:6])
        assert part.transform.c == pytest.approx(TRANSFORM.c + 26 * TRANSFORM.a, abs=1e-6)
        own = part.read_nodata_mask()
        assert (own is None) == (mask is None)
        if own is not None:
            np.testing.assert_array_equal(own, mask[15:22, 26:34])


def test_selections_outside_are_refused(tmp_path):
    for raster in every_kind(tmp_path).values():
        with pytest.raises(IndexError, match=r"0-based bands in 0..5"):
            raster.select([6])
        with pytest.raises(ValueError, match="at least one band"):
            raster.select([])
        for window in ((0, 0, 73, 90), (-1, 0, 5, 5), (0, 0, 0, 5)):
            with pytest.raises(ValueError, match="expected a window"):
                raster.select(window=window)


def test_arrays_are_not_copied():
    values = scene_pixels()
    raster = ArrayRaster(values)
    for part in (raster.read(), raster.select([1, 2, 3], (0, 5, 10, 10)).read()):
        assert np.shares_memory(part, values)
    assert not np.shares_memory(raster.read([3, 1]), values)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (np.zeros((3, 4)), {}, ValueError, "Put the bands first"),
        (np.zeros((0, 3, 4)), {}, ValueError, "Put the bands first"),
        (np.zeros((1, 3, 4), dtype=complex), {}, TypeError, "integers or floats, found complex128"),
        (np.zeros((2, 3, 4)), {"descriptions": ["a"]}, ValueError, "a description for each of 2 bands, found 1"),
        (np.zeros((2, 3, 4)), {"nodata_mask": np.zeros((4, 3))}, ValueError, "expected a nodata mask of"),
    ],
)
def test_arrays_of_other_shapes_are_refused(values, options, error, message):
    with pytest.raises(error, match=message):
        ArrayRaster(values, **options)


def test_reads_are_the_same_in_threads_forks_and_other_processes(tmp_path):
    rasters = list(every_kind(tmp_path).values())
    expected = [raster.read() for raster in rasters]
    # Forks first: a thread that Python has joined may still be leaving PROJ, and a fork would inherit its lock.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all((values == expected[number]).all() for number, values in enumerate(pool.map(_read, rasters)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: rasters[number % 6].read(), range(42)))
    assert all((values == expected[number % 6]).all() for number, values in enumerate(found))
    assert all((pickle.loads(pickle.dumps(raster)).read() == expected[i]).all() for i, raster in enumerate(rasters))


def _read(raster) -> np.ndarray:
    return raster.read()


def test_descriptions_for_fingerprints_follow_what_changes_pixels(tmp_path):
    frame = array_raster()
    flags = ArrayRaster(np.zeros((1, 72, 90), dtype=np.uint8))
    rasters = [
        frame,
        frame.select([0]),
        array_raster(nodata=None),
        array_raster(nodata_mask=np.zeros((72, 90), dtype=bool)),
        MaskedRaster(frame, flags, 2),
        MaskedRaster(frame, flags, 10),
        ScaledRaster(frame, [1] * 6, [1] * 6),
        ScaledRaster(frame, [1] * 6, [1] * 6, nodata_values=[3]),
        GeoTiffRaster(content=write_scene(tmp_path / "a.tif").read_bytes()),
        GeoTiffRaster(content=write_scene(tmp_path / "b.tif", scene_pixels(seed=1)).read_bytes()),
    ]
    assert len({str(describe_raster(raster)) for raster in rasters}) == len(rasters)


HLS_UTM = (
    'PROJCS["UTM Zone 10, Northern Hemisphere",GEOGCS["Unknown datum based upon the WGS 84 ellipsoid",'
    'DATUM["Not specified (based on WGS 84 spheroid)",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",-123],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1]]'
)
MOVED_UTM = CRS.from_epsg(32610).to_wkt().replace('"false_easting",500000', '"false_easting",500100')
SITE, ENGINEERING = 'LOCAL_CS["site grid",UNIT["metre",1]]', 'LOCAL_CS["machine",UNIT["foot",0.3048]]'
METRES, DEGREES = Affine(30, 0, 500_000, 0, -30, 4_000_000), Affine(3e-4, 0, -85, 0, -3e-4, 42)


@pytest.mark.parametrize(
    ("first", "other", "transform"),
    [
        (HLS_UTM, "EPSG:32610", METRES),
        ("EPSG:32610", "+proj=utm +zone=10 +ellps=WGS84 +units=m", METRES),
        ("+proj=tmerc +lon_0=-123 +k=0.9996 +x_0=500000 +datum=WGS84", HLS_UTM, METRES),
        (CRS.from_epsg(32610).to_wkt(version="WKT1_ESRI"), HLS_UTM, METRES),
        (CRS.from_epsg(32610).to_wkt(version="WKT2_2019"), "EPSG:32610", METRES),
        ("EPSG:26910", "EPSG:32610", METRES),  # NAD83: no shift is known
        ("EPSG:25833", "EPSG:32633", METRES),  # ETRS89
        ("EPSG:32610+5773", "EPSG:32610", METRES),  # with heights
        ("+proj=utm +zone=10 +ellps=WGS84 +towgs84=0,0,0,0,0,0,0", "EPSG:32610", METRES),
        ("EPSG:5070", "ESRI:102039", METRES),
        ("EPSG:4326", "OGC:CRS84", DEGREES),
        ("+proj=longlat +ellps=WGS84", "EPSG:4326", DEGREES),
        ("EPSG:4979", "+proj=longlat +datum=WGS84", DEGREES),
        (SITE, SITE, METRES),
    ],
)
def test_one_place_may_be_written_in_two_ways(first, other, transform):
    crs, other_crs = CRS.from_user_input(first), CRS.from_user_input(other)
    assert is_same_crs(crs, other_crs, transform, (512, 512))
    assert measure_shift((crs, transform), (other_crs, transform), (512, 512)) == 0
    moved = Affine(*transform[:5], transform.f + 2 * transform.e)
    assert measure_shift((crs, transform), (other_crs, moved), (512, 512)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("first", "other", "transform"),
    [
        ("EPSG:4267", "EPSG:4326", DEGREES),  # NAD27, some metres there
        ("EPSG:26710", "EPSG:32610", METRES),
        ("EPSG:32610", "EPSG:32611", METRES),
        ("EPSG:32610", "EPSG:4326", METRES),
        ("EPSG:32610", MOVED_UTM, METRES),
        ("+proj=utm +zone=10 +ellps=clrk66", "EPSG:32610", METRES),
        (SITE, "EPSG:32610", METRES),
        (SITE, ENGINEERING, METRES),
        ("EPSG:32610", None, METRES),
    ],
)
def test_other_places_stay_different_and_their_names_too(first, other, transform):
    crs, other_crs = (None if text is None else CRS.from_user_input(text) for text in (first, other))
    assert not is_same_crs(crs, other_crs, transform, (512, 512))
    assert not is_same_crs(other_crs, crs, transform, (512, 512))
    assert measure_shift((crs, transform), (other_crs, transform), (512, 512)) == float("inf")
    expected, found = name_crs_pair(crs, other_crs)
    assert expected != found
    assert max(map(len, (expected, found))) < 100


def test_longitudes_a_turn_apart_are_one_place():
    crs, east, west = CRS.from_epsg(4326), Affine(0.1, 0, 190, 0, -0.1, 10), Affine(0.1, 0, -170, 0, -0.1, 10)
    assert measure_shift((crs, east), (CRS.from_user_input("OGC:CRS84"), west), (50, 50)) == pytest.approx(0)
    assert find_degrees(crs, [190, 180, -180, 365], [1, 2, 3, 4], "a")[0].tolist() == [-170, 180, -180, 5]
