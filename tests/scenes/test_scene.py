# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes opened from files, folders, granules and arrays."""

import datetime
import json
import os
import pickle
import warnings

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.rasters.derived import BandStack
from prithvi_hf.rasters.geotiff_raster import GeoTiffNotFoundError, GeoTiffRaster
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.rasters.warping import Grid, WarpedRaster
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.scenes.scene import FrameWarning, open_scene, scene_coordinates
from tests.granule_factory import (
    CLOUD,
    FILL,
    HLS_CODES,
    HLS_TRANSFORM,
    MONTHS,
    SHADOW,
    SIZE,
    WATER,
    ZONE_10,
    ZONE_11,
    hls_name,
    set_scale,
    with_swath_edge,
    write_hls_granule,
)
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


REFLECTANCE = {"image_mean": [0.08] * 6, "image_std": [0.06] * 6}


def values_of(scene, processor) -> np.ndarray:
    """Pixel values (6, frames, height, width) of a scene by the image processor."""
    image = scene.frames[0] if len(scene.frames) == 1 else tuple(scene.frames)
    return processor(image, return_tensors="np")["pixel_values"][0]


def pixels_of(day, *, edge: bool = False) -> np.ndarray:
    pixels = scene_pixels(*SIZE, seed=sum(day))
    return with_swath_edge(pixels) if edge else pixels


@pytest.fixture
def months(tmp_path):
    """Three months of granules; that of the second has a swath edge."""
    for position, (sensor, day) in enumerate(MONTHS):
        write_hls_granule(tmp_path, sensor, day, pixels=pixels_of(day, edge=position == 1))
    return tmp_path


@pytest.mark.parametrize("form", ["folder", "folders", "lists", "flat", "stacks"])
def test_three_months_of_granules_are_the_arrays_they_were_made_of(months, form):
    """In every way to give them, both sensors' codes, order by time, and the swath edge as no data."""
    folders = [months / hls_name(*month) for month in MONTHS]
    files = [sorted(map(str, folder.glob("*.tif"))) for folder in folders]
    given = {
        "folder": months,
        "folders": folders,
        "lists": files,
        # By name, as a glob gives them: L30 of July first.
        "flat": sorted(file for group in files for file in group),
        "stacks": tuple(map(tuple, files)),
    }[form]
    processor = tiny_processor(num_frames=3)
    scene = open_scene(given, image_processor=processor)
    arrays = tuple(pixels_of(day, edge=position == 1) for position, (_, day) in enumerate(MONTHS))
    expected = processor(arrays, file_nodata=-9999.0, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(values_of(scene, processor), expected)
    assert [date.date() for date in scene.dates] == [datetime.date(*day) for _, day in MONTHS]
    assert scene.grid == Grid(ZONE_10, HLS_TRANSFORM, *SIZE)
    assert scene.name == hls_name(*MONTHS[0])
    assert sorted(scene.files) == sorted(
        str(months / hls_name(sensor, day) / f"{hls_name(sensor, day)}.{code}.tif")
        for sensor, day in MONTHS
        for code in HLS_CODES[sensor].values()
    )


@pytest.mark.parametrize("tags", [False, True])
def test_granules_of_digital_numbers_reach_a_model_of_reflectance_as_its_training_files(months, tmp_path, tags):
    """The irrigation recipe was trained on float32 files of reflectance: bit for bit the same values."""
    pixels = pixels_of((2021, 6, 24), edge=True)
    folder = write_hls_granule(tmp_path / "one", pixels=pixels, tags=tags)
    processor = tiny_processor(**REFLECTANCE)
    scene = open_scene(folder, image_processor=processor)
    trained = np.where(pixels == -9999, np.float32(np.nan), pixels.astype(np.float32) / 10_000)
    expected = processor(trained, return_tensors="np")["pixel_values"][0]
    found = values_of(scene, processor)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert (found == expected).mean() > 0.99
    mask = processor(scene.frames[0], return_nodata_mask=True, return_tensors="np")["nodata_mask"][0]
    np.testing.assert_array_equal(mask, pixels[0] == -9999)


def test_granules_of_digital_numbers_stay_as_they_are_for_a_model_of_them(tmp_path):
    folder = write_hls_granule(tmp_path, tags=True)
    scene = open_scene(folder, image_processor=tiny_processor(), scale="refuse")
    assert isinstance(scene.frames[0], BandStack)
    assert scene.frames[0].descriptions == tuple(PRITHVI_BANDS)
    np.testing.assert_array_equal(scene.frames[0].read(), pixels_of((2021, 6, 24)))


def test_a_missing_band_is_named_before_anything_is_read(tmp_path):
    folder = write_hls_granule(tmp_path, "L30", leave_out=["B07"])
    with pytest.raises(ValueError, match=r"HLS.L30.*none for SWIR_2 \(B07\). Restore the missing files"):
        open_scene(folder, image_processor=tiny_processor())
    folder = write_hls_granule(tmp_path, "S30", leave_out=["B8A"])
    with pytest.raises(ValueError, match=r"HLS.S30.*none for NIR_NARROW \(B8A\)"):
        open_scene(folder, image_processor=tiny_processor())


def test_a_file_that_disappears_is_named(months):
    scene = open_scene(months, image_processor=tiny_processor(num_frames=3))
    gone = scene.files[7]
    os.remove(gone)
    with pytest.raises(GeoTiffNotFoundError, match=gone):
        values_of(scene, tiny_processor(num_frames=3))
    with pytest.raises(FileNotFoundError):
        scene.fingerprint()


def test_fmask_bits_mask_pixels_of_their_kind_alone(tmp_path):
    fmask = np.zeros(SIZE, dtype=np.uint8)
    fmask[0, 0], fmask[1, 1], fmask[2, 2], fmask[3, 3] = CLOUD, SHADOW | WATER, WATER, FILL
    fmask[4, 4] = 0b11000000  # aerosol, which is no reason
    folder = write_hls_granule(tmp_path, fmask=fmask)
    scene = open_scene(folder, image_processor=tiny_processor(), fmask=["cloud", "shadow"])
    expected = np.zeros(SIZE, dtype=bool)
    expected[[0, 1, 3], [0, 1, 3]] = True
    np.testing.assert_array_equal(scene.frames[0].read_nodata_mask(), expected)
    np.testing.assert_array_equal(scene.frames[0].read_nodata_mask((1, 1, 3, 4)), expected[1:4, 1:5])
    narrowed = scene.frames[0].select([2], (0, 0, 3, 3))
    np.testing.assert_array_equal(narrowed.read_nodata_mask(), expected[:3, :3])
    assert scene.files[-1].endswith("Fmask.tif")
    assert open_scene(folder, image_processor=tiny_processor()).frames[0].read_nodata_mask() is None


def test_fmask_without_its_file_and_for_other_files_is_refused(tmp_path):
    folder = write_hls_granule(tmp_path, leave_out=["Fmask"])
    with pytest.raises(ValueError, match=r"expected a file of the layer Fmask for the option fmask \(cloud\)"):
        open_scene(folder, image_processor=tiny_processor(), fmask="cloud")
    with pytest.raises(
        ValueError,
        match=r"with its quality layer \(Fmask, SCL, QA_PIXEL\)",
    ):
        open_scene(write_scene(tmp_path / "a.tif"), fmask=["cloud"])
    with pytest.raises(ValueError, match=r"fmask: expected some of .* found 'clouds'"):
        open_scene(folder, fmask=["clouds"])


def test_a_granule_of_the_zone_beside_is_warped_and_what_it_does_not_cover_is_no_data(tmp_path):
    """Smooth fields that are functions of the place: the warped frame has the first one's values."""
    first = write_hls_granule(tmp_path, day=(2021, 6, 24), pixels=_field(Grid(ZONE_10, HLS_TRANSFORM, *SIZE)))
    beside = Grid(ZONE_11, Affine(30.0, 0.0, 186_500.0, 0.0, -30.0, 4_403_000.0), 50, 80)
    pixels = _field(beside)
    fmask = np.zeros(beside.size, dtype=np.uint8)
    fmask[:15] = CLOUD
    second = write_hls_granule(
        tmp_path,
        "L30",
        (2021, 7, 18),
        pixels=pixels,
        fmask=fmask,
        tile="11SKD",
        crs=ZONE_11,
        transform=beside.transform,
    )
    processor = tiny_processor(num_frames=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrameWarning)
        scene = open_scene([first, second], image_processor=processor, fmask=["cloud"])
    mask, values = scene.frames[1].read_nodata_mask(), scene.frames[1].read()
    assert 0.2 < mask.mean() < 0.9
    wanted = _field(scene.grid)
    errors = np.abs(values.astype(int) - wanted)
    inner = ~(mask | np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1) | np.roll(mask, -1, 1))
    assert errors[:, inner].max() <= 2
    # On the edge half of the neighbours are missing; the rest stands up to half a pixel aside, at 25 a pixel.
    assert errors[:, ~mask].max() <= 13
    assert (values[:, values[0] == -9999] == -9999).all()
    np.testing.assert_array_equal(values[0] == -9999, mask)
    with pytest.raises(ValueError, match=r"Frame 2 \(.*\) has 50 x 80 pixels, the first 72 x 90"):
        open_scene([first, second], image_processor=processor, grid_mismatch="refuse")


def _field(grid: Grid) -> np.ndarray:
    """int16 (6, height, width), linear in longitude and latitude."""
    from rasterio.warp import transform

    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    a, b, c, d, e, f = grid.transform[:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    longitudes, latitudes = (np.asarray(part) for part in transform(grid.crs, "EPSG:4326", x.ravel(), y.ravel()))
    plane = 1500 + (longitudes + 120.66) * 4e4 + (latitudes - 39.7) * 3e4
    return np.stack([plane.reshape(grid.size) + 10 * band for band in range(6)]).round().astype(np.int16)


def test_frames_of_another_place_are_an_error(tmp_path):
    first = write_scene(tmp_path / "a.tif")
    far = write_scene(tmp_path / "b.tif", transform=Affine(*TRANSFORM[:2], TRANSFORM.c + 5e5, *TRANSFORM[3:6]))
    with pytest.raises(ValueError, match=r"b.tif: expected a frame that overlaps .* Give frames of one place"):
        open_scene([first, far])


def test_a_frame_that_covers_little_is_warned_of(tmp_path):
    first = write_scene(tmp_path / "a.tif")
    moved = write_scene(tmp_path / "b.tif", transform=Affine(*TRANSFORM[:2], TRANSFORM.c + 600, *TRANSFORM[3:6]))
    with pytest.warns(FrameWarning, match=r"Frame 2 .*b.tif\) covers 33% of the scene"):
        open_scene([first, moved])


def test_granules_of_several_tiles_are_several_scenes(tmp_path):
    write_hls_granule(tmp_path, day=(2021, 6, 24))
    write_hls_granule(tmp_path, day=(2021, 7, 24), tile="11SKD")
    with pytest.raises(ValueError, match="Expected granules of one tile"):
        open_scene(tmp_path)


def test_another_number_of_frames_than_the_model_takes_is_refused_at_once(months):
    with pytest.raises(ValueError, match=r"expected 4 frames \(num_frames\), found 3: .* of 2021-06-24"):
        open_scene(months, image_processor=tiny_processor(num_frames=4))
    assert len(open_scene(months).frames) == 3


def test_a_stack_of_all_dates_is_one_frame(tmp_path):
    path = write_scene(tmp_path / "stack.tif", scene_pixels(bands=18))
    scene = open_scene(path, image_processor=tiny_processor(num_frames=3), dates=["2021-06-01", "2021-07-01", None])
    assert len(scene.frames) == 1
    assert len(scene.dates) == 3


def test_folders_and_lists_that_tell_nothing_are_refused(tmp_path):
    write_scene(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="expected a folder of GeoTIFFs named as layers"):
        open_scene(tmp_path)
    with pytest.raises(ValueError, match="at least one frame"):
        open_scene([])
    with pytest.raises(TypeError, match="found int"):
        open_scene([3])
    with pytest.raises(TypeError, match="A list among the frames is expected to hold the paths"):
        open_scene([[scene_pixels()]])
    with pytest.raises(ValueError, match="grid_mismatch: expected one of"):
        open_scene(tmp_path / "a.tif", grid_mismatch="resample")
    with pytest.raises(ValueError, match="scale: expected one of auto"):
        open_scene(tmp_path / "a.tif", scale="yes")


def test_a_list_of_two_granules_is_no_frame(months):
    files = [str(file) for month in MONTHS[:2] for file in (months / hls_name(*month)).glob("*.tif")]
    with pytest.raises(ValueError, match="Expected the files of one granule in a list that is one frame"):
        open_scene([files])


def test_files_of_one_band_each_with_other_names_are_a_frame(tmp_path):
    pixels = scene_pixels()
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    order = [5, 0, 3, 1, 2, 4]
    paths = [write_scene(tmp_path / f"{names[band]}.tif", pixels[band : band + 1]) for band in order]
    processor = tiny_processor()
    scene = open_scene([paths], image_processor=processor)
    np.testing.assert_array_equal(
        values_of(scene, processor), processor(pixels, return_tensors="np")["pixel_values"][0]
    )
    with pytest.raises(ValueError, match="no band for GREEN"):
        open_scene([[path for path in paths if path.stem != "green"]], image_processor=processor)


def test_arrays_lie_where_files_of_their_size_lie(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    scene = open_scene([path, scene_pixels(seed=1)], image_processor=tiny_processor(num_frames=2))
    assert scene.frames[1].crs == CRS_UTM
    assert scene.frames[1].transform == TRANSFORM
    with pytest.raises(ValueError, match=r"Frame 2 \(<array>\) has 72 x 80 pixels, the scene 72 x 90"):
        open_scene([path, scene_pixels(width=80)])


def test_one_grid_with_other_last_bits_is_not_resampled(tmp_path):
    first = write_scene(tmp_path / "a.tif")
    moved = Affine(*TRANSFORM[:2], TRANSFORM.c + 0.01, *TRANSFORM[3:6])
    second = write_scene(tmp_path / "b.tif", scene_pixels(seed=1), transform=moved)
    scene = open_scene([first, second])
    assert all(isinstance(frame, GeoTiffRaster) for frame in scene.frames)


def test_the_grid_can_be_asked_for(tmp_path):
    pixels = scene_pixels()
    path = write_scene(tmp_path / "a.tif", pixels, nodata=None)
    part = Affine(TRANSFORM.a, 0, TRANSFORM.c + 5 * TRANSFORM.a, 0, TRANSFORM.e, TRANSFORM.f + 4 * TRANSFORM.e)
    asked = Grid(CRS_UTM, part, 40, 50)
    other = write_scene(tmp_path / "grid.tif", scene_pixels(40, 50), transform=part)
    for grid in (asked, other):
        scene = open_scene(path, grid=grid)
        assert scene.grid.size == (40, 50)
        np.testing.assert_array_equal(scene.frames[0].read(), pixels[:, 4:44, 5:55])
        assert not scene.frames[0].read_nodata_mask().any()
    coarse = open_scene(path, resolution=20)
    assert coarse.grid.size == (36, 45)
    assert coarse.grid.transform.a == 20
    means = pixels.reshape(6, 36, 2, 45, 2).mean(axis=(2, 4))
    assert np.abs(coarse.frames[0].read() - means).max() <= 1
    with pytest.raises(ValueError, match="resolution: expected a side of a pixel above 0"):
        open_scene(path, resolution=-1)


@pytest.mark.parametrize("resolution", [1e9, 1e-6, 1e-320, 0.6, float("nan"), float("inf"), 0.0])
def test_a_resolution_that_makes_no_sense_is_refused(tmp_path, resolution):
    """1e9 made a grid of no pixels, 1e-6 one that took for ever, both of metres taken for something else."""
    path = write_scene(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"^resolution: expected .* found .*"):
        open_scene(path, resolution=resolution)
    with pytest.raises(ValueError, match=r"^resolution: expected .* found .*"):
        open_scene(path, resolution=resolution, grid=Grid(CRS_UTM, TRANSFORM, 72, 90))
    assert open_scene(path, resolution=0.63).grid.size == (1143, 1429)
    assert open_scene(path, resolution=5000.0).grid.size == (1, 1)


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_an_offset_that_is_no_number_is_refused(tmp_path, offset):
    with pytest.raises(ValueError, match=r"boa_add_offset: expected a finite number.* found (nan|inf)"):
        open_scene(write_scene(tmp_path / "a.tif"), image_processor=tiny_processor(), boa_add_offset=offset)


def test_rules_are_some_of_those_that_there_are(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="fmask_rule: expected one of any, all, found 'none'"):
        open_scene(path, fmask_rule="none")
    with pytest.raises(ValueError, match="on_read_error: expected one of raise, nodata, found 'skip'"):
        open_scene(path, on_read_error="skip")


def test_frames_out_of_time_order_are_warned_of(months):
    folders = [months / hls_name(*month) for month in reversed(MONTHS)]
    with pytest.warns(FrameWarning, match="found dates 2021-08-23, 2021-07-18, 2021-06-24"):
        scene = open_scene(folders, image_processor=tiny_processor(num_frames=3))
    assert [date.month for date in scene.dates] == [8, 7, 6]


def test_coordinates_of_dates_and_places(months):
    scene = open_scene(months, image_processor=tiny_processor(num_frames=3))
    found = scene_coordinates(scene)
    assert found["temporal_coords"].tolist() == [[2021, 174], [2021, 198], [2021, 234]]
    assert scene_coordinates(scene, first_day_of_year=1)["temporal_coords"][0, 1] == 175
    latitude, longitude = found["location_coords"]
    assert (latitude, longitude) == pytest.approx((39.717, -120.651), abs=1e-3)
    south = scene_coordinates(scene, (60, 0, 12, 90), ["location"])
    assert list(south) == ["location_coords"]
    assert south["location_coords"][0] < latitude
    assert found["temporal_coords"].dtype == found["location_coords"].dtype == np.float32


@pytest.mark.parametrize(
    ("crs", "west", "longitude"), [("EPSG:4326", 190, -165), ("OGC:CRS84", 350, -5), ("+proj=longlat", -10, -5)]
)
def test_places_are_told_from_180_west_to_180_east(crs, west, longitude):
    place = {"crs": CRS.from_user_input(crs), "transform": Affine(0.1, 0, west, 0, -0.1, 60)}
    scene = open_scene(ArrayRaster(scene_pixels(100, 100), **place))
    assert scene_coordinates(scene, encoded=["location"])["location_coords"] == pytest.approx((55, longitude))


def test_a_local_crs_has_no_place(tmp_path):
    local = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]')
    scene = open_scene(write_scene(tmp_path / "a.tif", crs=local))
    with pytest.raises(ValueError, match=r"^a: expected places on Earth.*gdalwarp"):
        scene_coordinates(scene, encoded=["location"])


def test_unknown_dates_and_places_are_not_a_number_and_never_made_up(tmp_path):
    scene = open_scene(write_scene(tmp_path / "a.tif"))
    assert np.isnan(scene_coordinates(scene)["temporal_coords"]).all()
    dated = open_scene(tmp_path / "a.tif", dates=[datetime.date(2020, 12, 31)])
    assert scene_coordinates(dated, encoded=["time"])["temporal_coords"].tolist() == [[2020, 365]]
    assert np.isnan(scene_coordinates(dated, num_frames=3)["temporal_coords"]).all()  # which of a stack is not said
    nowhere = open_scene([scene_pixels()])
    assert np.isnan(scene_coordinates(nowhere, encoded=["location"])["location_coords"]).all()
    placed = open_scene([scene_pixels()], location=(39.7, -120.6))
    assert scene_coordinates(placed)["location_coords"] == pytest.approx([39.7, -120.6])
    assert placed.fingerprint() != nowhere.fingerprint()
    with pytest.raises(ValueError, match="look swapped"):
        open_scene([scene_pixels()], location=(-120.6, 39.7))
    with pytest.raises(ValueError, match=r"location with a scene without CRS only, found it beside EPSG:32720"):
        open_scene(tmp_path / "a.tif", location=(39.7, -120.6))
    with pytest.raises(ValueError, match="a year from 1900 to 2099, found 20"):
        scene_coordinates(open_scene(tmp_path / "a.tif", dates=["0020-06-01"]))
    with pytest.raises(ValueError, match="expected some of time, location"):
        scene_coordinates(dated, encoded=["place"])
    with pytest.raises(ValueError, match="dates: expected a date such as"):
        open_scene(tmp_path / "a.tif", dates=["June"])
    with pytest.raises(ValueError, match="dates: expected one for each of 2 frames, found 1"):
        open_scene([tmp_path / "a.tif", tmp_path / "a.tif"], dates=["2021-06-01"])
    with pytest.raises(ValueError, match="dates: expected one for each of 1 frames, found 2"):
        open_scene(tmp_path / "a.tif", dates=["2021-06-01", "2021-07-01"])


def test_dates_of_a_stack_are_those_that_it_holds(tmp_path):
    path = write_scene(tmp_path / "stack.tif", scene_pixels(bands=18))
    days = ["2021-06-01", "2021-07-01", "2021-08-01"]
    processor = tiny_processor(num_frames=3)
    assert len(open_scene(path, image_processor=processor, dates=days).dates) == 3
    with pytest.raises(ValueError, match="one for each of 1 or 3 frames, found 2"):
        open_scene(path, image_processor=processor, dates=days[:2])
    assert len(open_scene(path, dates=days[:2]).dates) == 2  # nothing tells how many it stacks
    with pytest.raises(ValueError, match="found 4"):
        open_scene(path, dates=days + days[:1])


def test_fingerprints_tell_files_and_options_apart(months):
    processor = tiny_processor(num_frames=3)
    first = open_scene(months, image_processor=processor)
    fingerprint = json.dumps(first.fingerprint())
    assert json.dumps(open_scene(months, image_processor=processor).fingerprint()) == fingerprint
    masked = open_scene(months, image_processor=processor, fmask=["cloud"])
    others = [
        masked,
        open_scene(months, image_processor=processor, fmask=["cloud", "snow"]),
        open_scene(months, image_processor=processor, resolution=60),
        open_scene(months, image_processor=processor, scale="apply"),
        open_scene([pixels_of((2021, 6, 24))]),
        open_scene([pixels_of((2021, 6, 25))]),
    ]
    texts = [json.dumps(scene.fingerprint()) for scene in others]
    assert len({fingerprint, *texts}) == 7
    os.utime(first.files[3], ns=(1, 1))
    assert json.dumps(first.fingerprint()) != fingerprint


def test_scenes_pickle_and_hold_no_open_file(months):
    scene = open_scene(months, image_processor=tiny_processor(num_frames=3), fmask=["cloud"], resolution=20)
    before = _open_files()
    expected = [frame.read() for frame in scene.frames]
    masks = [frame.read_nodata_mask() for frame in scene.frames]
    assert _open_files() == before
    copy = pickle.loads(pickle.dumps(scene))
    for frame, values, mask in zip(copy.frames, expected, masks, strict=True):
        np.testing.assert_array_equal(frame.read(), values)
        np.testing.assert_array_equal(frame.read_nodata_mask(), mask)
    assert isinstance(copy.frames[0], WarpedRaster)


def _open_files() -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sorted(path for path in map(_target, links) if path.endswith((".tif", ".vrt")))


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_tags_of_a_plain_file_are_converted_or_refused(tmp_path):
    pixels = scene_pixels()
    path = write_scene(tmp_path / "a.tif", pixels)
    set_scale(path, 0.0001)
    # What the model takes already.
    scene = open_scene(path, image_processor=tiny_processor(), scale="refuse")
    assert isinstance(scene.frames[0], GeoTiffRaster)
    # The same numbers for a model of reflectance.
    scene = open_scene(path, image_processor=tiny_processor(**REFLECTANCE))
    np.testing.assert_allclose(scene.frames[0].read(), pixels / 10_000, rtol=1e-7)
    with pytest.raises(ValueError, match=r"number \* 0.0001 \+ 0. scale 'refuse' does not allow it"):
        open_scene(path, image_processor=tiny_processor(**REFLECTANCE), scale="refuse")
    with pytest.raises(ValueError, match="nothing tells the units that the model takes"):
        open_scene(path)
    np.testing.assert_array_equal(open_scene(path, scale="ignore").frames[0].read(), pixels)
    np.testing.assert_allclose(open_scene(path, scale="apply").frames[0].read(), pixels / 10_000, rtol=1e-7)


def test_three_months_of_granules_become_a_map(tmp_path):
    """Both sensors, a swath edge, clouds, and a last month of the tile beside in the next zone, for reflectance."""
    edge = pixels_of(MONTHS[0][1], edge=True)
    clouds = np.zeros(SIZE, dtype=np.uint8)
    clouds[:, 50:] = CLOUD
    first = write_hls_granule(tmp_path, *MONTHS[0], pixels=edge, fmask=clouds)
    second = write_hls_granule(tmp_path, *MONTHS[1], pixels=pixels_of(MONTHS[1][1], edge=True))
    beside = Grid(ZONE_11, Affine(30.0, 0.0, 186_900.0, 0.0, -30.0, 4_404_100.0), 90, 50)
    third = write_hls_granule(
        tmp_path, *MONTHS[2], pixels=_field(beside), tile="11SKD", crs=ZONE_11, transform=beside.transform
    )
    model, processor = tiny_model(num_frames=3), tiny_processor(num_frames=3, **REFLECTANCE)
    scene = open_scene([first, second, third], image_processor=processor, fmask=["cloud"], fmask_rule="all")
    missing = [frame.read_nodata_mask() for frame in scene.frames]
    for frame, mask in zip(scene.frames, missing, strict=True):
        mask |= np.isnan(frame.read()).all(axis=0)
    result = predict_scene(model, processor, scene, tmp_path / "map.tif", show_progress=False)
    np.testing.assert_array_equal(result.mask == 255, np.logical_and.reduce(missing))
    assert 0 < (result.mask == 255).sum() < result.mask.size
