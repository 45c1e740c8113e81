# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Objects of other packages as frames: xarray, rasterio datasets, arrays with a place, through every door."""

import datetime
import io

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from prithvi_hf.models.prithvi.pipeline_prithvi import GeospatialSegmentationPipeline
from prithvi_hf.rasters.objects import as_raster, as_rasters
from prithvi_hf.scenes import open_scene, predict_scene
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


BANDS = tuple(tiny_processor().bands)
PLACE = {"crs": "EPSG:32720", "transform": TRANSFORM}


@pytest.fixture(scope="module")
def pipe():
    return GeospatialSegmentationPipeline(model=tiny_model(), image_processor=tiny_processor(), device="cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    pixels = scene_pixels(20, 24)
    pixels[:, :5, :7] = -9999
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", pixels)


@pytest.fixture(scope="module")
def pixels(file):
    with rasterio.open(file) as dataset:
        return dataset.read()


@pytest.fixture(scope="module")
def expected(pipe, file):
    return pipe(file)


def check_all_doors(pipe, value, expected, folder, is_placed=True, streams=True):
    """Take an object by processor, pipeline and `predict_scene`: it has to be the file."""
    values = pipe.image_processor(value, return_tensors="pt", return_nodata_mask=True)
    np.testing.assert_array_equal(values["nodata_mask"][0], expected.mask == 255)
    maps = [pipe(value)]
    if streams:
        maps.append(predict_scene(pipe.model, pipe.image_processor, value, folder / "map.tif", show_progress=False))
    for found in maps:
        np.testing.assert_array_equal(found.mask, expected.mask)
        if is_placed:
            assert (found.crs, tuple(found.transform)) == (expected.crs, tuple(expected.transform))


@pytest.mark.parametrize("form", ["path", "text", "bytes", "bytes in memory", "tensor", "masked", "list of one"])
def test_files_and_arrays_go_through_every_door(pipe, file, expected, tmp_path, form, pixels):
    value = {
        "path": file,
        "text": str(file),
        "bytes": file.read_bytes(),
        "bytes in memory": io.BytesIO(file.read_bytes()),
        "tensor": torch.from_numpy(np.where(pixels == -9999, np.nan, pixels.astype(np.float32))),
        "masked": np.ma.masked_equal(pixels, -9999),
        "list of one": (file,),
    }[form]
    check_all_doors(pipe, value, expected, tmp_path, is_placed=form not in ("tensor", "masked"))


@pytest.mark.parametrize("form", ["dataset", "memory file", "dataset in memory", "warped", "cut"])
def test_rasterio_datasets_go_through_every_door(pipe, file, expected, tmp_path, form):
    with rasterio.open(file) as dataset, MemoryFile(file.read_bytes()) as memory, memory.open() as inside:
        if form == "memory file":
            return check_all_doors(pipe, memory, expected, tmp_path)
        if form in ("warped", "cut"):
            place = {"transform": dataset.transform, "height": dataset.height, "width": dataset.width}
            with WarpedVRT(dataset, crs=dataset.crs, **(place if form == "cut" else {})) as warped:
                return check_all_doors(pipe, warped, expected, tmp_path)
        return check_all_doors(pipe, dataset if form == "dataset" else inside, expected, tmp_path)


def test_the_alpha_band_of_a_warped_dataset_is_its_mask(file):
    with rasterio.open(file) as dataset, WarpedVRT(dataset, crs="EPSG:4326", add_alpha=True, nodata=None) as warped:
        (raster,) = as_rasters(warped)
    assert (raster.count, raster.crs.to_epsg()) == (6, 4326)
    assert 0 < raster.read_nodata_mask().mean() < 0.2  # corners that turned


def test_datasets_that_are_closed_or_written_are_refused(pipe, file, tmp_path):
    with rasterio.open(file) as dataset:
        profile = dataset.profile
    with pytest.raises(ValueError, match=r"found one that is closed\. Open it again"):
        pipe(dataset)
    with (
        rasterio.open(tmp_path / "new.tif", "w", **profile) as writer,
        pytest.raises(ValueError, match="found one opened to be written"),
    ):
        pipe.image_processor(writer)


@pytest.mark.parametrize("crs", ["EPSG:32720", 32720, CRS_UTM, CRS_UTM.to_wkt(), np.int64(32720)])
def test_arrays_are_placed_by_crs_and_transform(pipe, pixels, tmp_path, crs):
    place = {"crs": crs, "transform": tuple(TRANSFORM)}
    streamed = pipe(pixels, output=tmp_path / "map.tif", **place)
    for found in (pipe(pixels, **place), streamed, pipe(as_raster(pixels, **place))):
        assert (found.crs, tuple(found.transform)) == (CRS_UTM, tuple(TRANSFORM))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.crs == CRS_UTM


def test_a_raster_of_an_array_has_names_and_nodata(pipe, pixels, expected, tmp_path):
    raster = as_raster(pixels[::-1].copy(), band_names=BANDS[::-1], nodata=-9999, **PLACE)
    check_all_doors(pipe, raster, expected, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crs": 32720}, "found crs alone. Give transform too"),
        ({"transform": TRANSFORM}, "found transform alone. Give crs too"),
        ({"crs": "no crs", "transform": TRANSFORM}, "crs: expected a CRS such as"),
        ({"crs": 32720, "transform": (1, 0, 0)}, "expected the six numbers of an affine transform"),
        ({"crs": 32720, "transform": Affine(0, 0, 1, 0, 0, 2)}, "expected the six numbers of an affine transform"),
    ],
)
def test_a_place_that_is_none_is_refused(pipe, pixels, tmp_path, given, message):
    for options in ({}, {"output": tmp_path / "map.tif"}):
        with pytest.raises(ValueError, match=message):
            pipe(pixels, **given, **options)
    assert not list(tmp_path.iterdir())


def test_files_say_themselves_where_they_are(pipe, file, tmp_path):
    for options in ({}, {"output": tmp_path / "map.tif"}):
        with pytest.raises(ValueError, match="Leave them out"):
            pipe(file, **PLACE, **options)
    with pytest.raises(TypeError, match=r"takes no options, found \['crs', 'transform'\]"):
        predict_scene(pipe.model, pipe.image_processor, open_scene(file), tmp_path / "map.tif", **PLACE)


@pytest.mark.parametrize("value", [object(), 3, {"a": 1}, None])
def test_what_holds_no_pixels_is_refused(pipe, value, tmp_path):
    for take in (
        pipe,
        pipe.image_processor,
        lambda one: predict_scene(pipe.model, pipe.image_processor, one, tmp_path / "map.tif"),
    ):
        with pytest.raises(TypeError, match=f"found {type(value).__name__}"):
            take(value)


# What follows needs xarray; georeference is written as rioxarray, stackstac and odc-stac leave it.


def make_cube(pixels, names=BANDS, **coordinates):
    """A DataArray as rioxarray opens one."""
    xarray = pytest.importorskip("xarray")
    rows, columns = np.arange(pixels.shape[-2]) + 0.5, np.arange(pixels.shape[-1]) + 0.5
    a, _, c, _, e, f = TRANSFORM[:6]
    coordinates = {"y": f + e * rows, "x": c + a * columns, "band": np.arange(1, len(pixels) + 1), **coordinates}
    notes = {"crs_wkt": CRS_UTM.to_wkt(), "GeoTransform": " ".join(map(repr, (c, a, 0.0, f, 0.0, e)))}
    attributes = {"_FillValue": np.int16(-9999), "scale_factor": 1.0, "add_offset": 0.0}
    if names is not None:
        attributes["long_name"] = tuple(names)
    cube = xarray.DataArray(pixels, coordinates, ("band", "y", "x"), attrs=attributes)
    return cube.assign_coords(spatial_ref=xarray.Variable((), 0, notes))


FORMS = {
    "as it is": lambda cube: cube,
    "bands last": lambda cube: cube.transpose("y", "x", "band"),
    "columns first": lambda cube: cube.transpose("x", "band", "y"),
    "bands turned": lambda cube: cube.isel(band=slice(None, None, -1)),
    "other names": lambda cube: cube.rename(y="latitude", x="longitude", band="wavelength"),
    "masked": lambda cube: cube.where(cube != -9999).assign_attrs(_FillValue=None),
    "encoded": lambda cube: encode(cube),
    "named along the bands": lambda cube: (
        cube.assign_coords(band=list(BANDS)).drop_attrs(deep=False).assign_attrs(_FillValue=-9999)
    ),
    "numbered": lambda cube: cube.assign_coords(band=list("123456")),
    "common names": lambda cube: name_bands(cube),
    "one date": lambda cube: cube.expand_dims(time=[np.datetime64("2022-08-06")]),
    "a Dataset of bands": lambda cube: bands_as_variables(cube),
    "a Dataset of one array": lambda cube: cube.to_dataset(name="reflectance"),
    "a Dataset of netCDF": lambda cube: cube.to_dataset(name="reflectance").reset_coords("spatial_ref"),
    "stackstac": lambda cube: as_stackstac(cube),
    "CF": lambda cube: as_cf(cube),
    "another name of time": lambda cube: cube.expand_dims(acquired=[np.datetime64("2022-08-06", "ns")], axis=2),
}


def encode(cube):
    cube = cube.drop_attrs(deep=False).assign_attrs(long_name=BANDS)
    cube.encoding["_FillValue"] = -9999
    return cube


def name_bands(cube):
    names = ("band", ["blue", "green", "red", "nir08", "swir16", "swir22"])
    return cube.assign_attrs(long_name="reflectance").assign_coords(common_name=names)


def bands_as_variables(cube):
    dataset = cube.assign_coords(band=list(BANDS)).to_dataset(dim="band")
    for name in BANDS:
        dataset[name].attrs.update(_FillValue=-9999, long_name=name)
    return dataset


def as_stackstac(cube):
    attributes = {"crs": "epsg:32720", "transform": TRANSFORM, "_FillValue": -9999}
    cube = cube.drop_vars("spatial_ref").assign_coords(epsg=32720, band=["B2", "B3", "B4", "B8A", "B11", "B12"])
    return cube.expand_dims(time=1).drop_attrs(deep=False).assign_attrs(attributes)


def as_cf(cube):
    """A Dataset whose CRS stands in CF's own words, in a variable."""
    pyproj = pytest.importorskip("pyproj")
    cube.spatial_ref.attrs = pyproj.CRS.from_epsg(32720).to_cf() | {
        "GeoTransform": cube.spatial_ref.attrs["GeoTransform"]
    }
    del cube.spatial_ref.attrs["crs_wkt"]
    cube = cube.rename(spatial_ref="crs").assign_attrs(grid_mapping="crs")
    return cube.to_dataset(name="reflectance").reset_coords("crs")


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_xarray_go_through_every_door(pipe, pixels, expected, tmp_path, form):
    streams = form in ("columns first", "masked", "a Dataset of netCDF", "stackstac")  # they differ before that
    check_all_doors(pipe, FORMS[form](make_cube(pixels)), expected, tmp_path, streams=streams)


def test_several_dates_are_frames_with_their_dates(pixels, tmp_path):
    xarray = pytest.importorskip("xarray")
    cube, later = make_cube(pixels), make_cube(np.where(pixels == -9999, pixels, pixels + 9))
    dates = np.array(["2021-03-04T10:20:30", "2021-05-06"], "datetime64[ns]")
    both = xarray.concat([cube, later], "time").assign_coords(time=dates).transpose("y", "band", "time", "x")
    pipe = GeospatialSegmentationPipeline(model=tiny_model(2), image_processor=tiny_processor(2), device="cpu")
    expected = pipe((as_raster(cube), as_raster(later)))
    check_all_doors(pipe, both, expected, tmp_path)
    check_all_doors(pipe, bands_as_variables(both), expected, tmp_path)
    assert pipe(both).rgb_title == "scene, 2021-05-06, date 2 of 2"
    days = [
        datetime.datetime(2021, 3, 4, 10, 20, 30, tzinfo=datetime.UTC),
        datetime.datetime(2021, 5, 6, tzinfo=datetime.UTC),
    ]
    assert list(open_scene(both, pipe.image_processor).dates) == days
    with pytest.raises(ValueError, match="Expected one date, found 2"):
        as_raster(both)
    one = GeospatialSegmentationPipeline(model=tiny_model(), image_processor=tiny_processor(), device="cpu")
    with pytest.raises(ValueError, match=r"expected 1 frames \(num_frames\), found 2"):
        one(both)


def test_the_place_follows_what_was_cut_and_a_rotated_grid_is_kept(pixels):
    cube = make_cube(pixels)
    (cut,) = as_rasters(cube.isel(y=slice(10, 15), x=slice(5, 25)))
    a, _, c, _, e, f = TRANSFORM[:6]
    assert tuple(cut.transform)[:6] == pytest.approx((a, 0, c + 5 * a, 0, e, f + 10 * e), abs=1e-6)
    (upside_down,) = as_rasters(cube.isel(y=slice(None, None, -1)))
    assert tuple(upside_down.transform)[:6] == pytest.approx((a, 0, c, 0, -e, f + 20 * e), abs=1e-6)
    rotated = cube.drop_vars(["x", "y"])
    rotated.spatial_ref.attrs["GeoTransform"] = "400000 7 7 8400000 7 -7"
    assert as_rasters(rotated)[0].transform == Affine(7, 7, 400000, 7, -7, 8400000)


def test_a_mask_may_be_a_data_array_a_path_or_a_dataset(pixels, tmp_path):
    cube, labels = make_cube(pixels), np.random.default_rng(0).integers(0, 3, (20, 24)).astype(np.uint8)
    mask, path = cube.isel(band=0, drop=True).copy(data=labels).drop_attrs(deep=False), tmp_path / "mask.tif"
    write_scene(path, labels[None], nodata=None)
    processor = tiny_processor(num_labels=3)
    with rasterio.open(path) as dataset:
        for one in (mask, path, dataset, [mask]):
            np.testing.assert_array_equal(processor(cube, one, return_tensors="np")["labels"][0], labels)


def test_arrays_that_nothing_explains_are_refused(pixels):
    cube = make_cube(pixels)
    for bad, message in (
        (cube.rename(y="a", x="b"), "Rename them"),
        (cube.expand_dims(member=2), "one of bands"),
        (cube.assign_coords(x=np.geomspace(1, 9, cube.sizes["x"])), "equal distances"),
        (bands_as_variables(cube).assign(QA=cube.isel(band=0, drop=True).assign_attrs(_FillValue=1)), "nodata value"),
        (cube.assign_attrs(scales=(1e-4, 1e-4)), "for each of 6 bands"),
        (cube.to_dataset(name="a").isel(x=0, y=0), "one variable of rows and columns"),
    ):
        with pytest.raises(ValueError, match=message):
            as_rasters(bad)


def test_scale_and_offset_of_an_array_are_applied_once(pipe, pixels, expected):
    stored = np.where(pixels == -9999, pixels, 2 * (pixels + 1000)).astype(np.int16)
    cube = make_cube(stored).assign_attrs(scale_factor=0.00005, add_offset=-0.1)
    with pytest.warns(UserWarning, match="scale"):
        found = pipe(cube)
    np.testing.assert_array_equal(found.mask, expected.mask)
