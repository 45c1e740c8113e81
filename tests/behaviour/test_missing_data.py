# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What becomes of pixels that a date lacks: masked ones, swath edges, truncated and damaged files, infinities."""

import json
import pickle
import shutil
from contextlib import suppress

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pipeline_prithvi import GeospatialSegmentationPipeline
from prithvi_hf.rasters.derived import MaskedRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffDecodeError, GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.rasters.warping import Grid, WarpedRaster
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.predict_scene import join_windows, logger, predict_scene
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.tiles import TilePlan
from tests.engine_factory import PixelModel, make_scene, plan_for, whole_map
from tests.granule_factory import CLOUD, FILL, MONTHS, SHADOW, SIZE, write_hls_granule
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene
from tests.scenes.test_engine_faults import damage_block


TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "pixel"}


@pytest.fixture
def two_dates(tmp_path):
    """Folders of two granules and the Fmask layers of both."""
    fmasks = np.zeros((2, *SIZE), dtype=np.uint8)
    fmasks[0, :20, :30] = CLOUD
    fmasks[1, 10:40, 50:] = CLOUD
    fmasks[1, :20, :30] = FILL  # the second was not observed where the first is cloudy
    fmasks[1, 60:, :10] = FILL
    fmasks[0, 50:, 60:] = SHADOW
    folders = [write_hls_granule(tmp_path, *month, fmask=fmask) for month, fmask in zip(MONTHS, fmasks, strict=False)]
    return folders, fmasks


@pytest.mark.parametrize("nodata_rule", ["all", "any"])
def test_a_cloud_in_any_date_is_no_data_in_the_map(two_dates, nodata_rule):
    folders, fmasks = two_dates
    processor = tiny_processor(num_frames=2, nodata_rule=nodata_rule)
    maps = {}
    for rule in ("any", "all"):
        scene = open_scene(folders, image_processor=processor, fmask=["cloud"], fmask_rule=rule)
        maps[rule] = whole_map(PixelModel(), processor, scene, plan_for(scene))[1]
    masked = (fmasks & CLOUD) != 0
    combined = masked.all(axis=0) if nodata_rule == "all" else masked.any(axis=0)
    np.testing.assert_array_equal(maps["all"], combined)
    np.testing.assert_array_equal(maps["any"], combined | (fmasks == CLOUD).any(axis=0))
    if nodata_rule == "all":
        assert not maps["any"][60:, :10].any(), "a swath edge in one date is filled by either rule"


def test_any_is_the_rule_unless_another_is_asked_for(two_dates):
    folders, _ = two_dates
    scenes = [
        open_scene(folders, image_processor=tiny_processor(2), fmask=fmask, **options)
        for fmask, options in (
            ("cloud", {}),
            ("cloud", {"fmask_rule": "any"}),
            ("cloud", {"fmask_rule": "all"}),
            ("snow", {"fmask_rule": "all"}),
        )
    ]
    texts = [json.dumps(scene.fingerprint()) for scene in scenes]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    assert scenes[0].frames[0].excludes
    assert not scenes[2].frames[0].excludes
    assert scenes[2].frames[0].read_excluded() is None


def masked_raster(rule="any"):
    flags = np.zeros((1, 60, 80), dtype=np.uint8)
    flags[0, 10:30, 20:50] = CLOUD
    flags[0, 40:, 60:] = FILL
    options = {"crs": CRS_UTM, "transform": TRANSFORM}
    frame = ArrayRaster(scene_pixels(60, 80), nodata=-9999, **options)
    return MaskedRaster(frame, ArrayRaster(flags, **options), CLOUD, rule, FILL), flags[0]


def test_excluded_pixels_follow_windows_and_pickles():
    raster, flags = masked_raster()
    part = pickle.loads(pickle.dumps(raster)).select([2, 1], (5, 10, 20, 30))
    np.testing.assert_array_equal(part.read_excluded(), flags[5:25, 10:40] == CLOUD)
    np.testing.assert_array_equal(part.read_excluded((10, 0, 3, 30)), flags[15:18, 10:40] == CLOUD)


@pytest.mark.parametrize("factor", [1, 2])
def test_excluded_pixels_pass_through_warps(factor):
    """Shifted by half a pixel, and in pixels twice as large; beside the source nothing is excluded."""
    raster, flags = masked_raster()
    left = TRANSFORM.c - (10.4 if factor == 1 else 10) * TRANSFORM.a
    moved = Affine(TRANSFORM.a * factor, 0, left, 0, TRANSFORM.e * factor, TRANSFORM.f)
    warped = WarpedRaster(raster, Grid(CRS_UTM, moved, 60 // factor, 100 // factor), nodata_values=[-9999])
    expected = np.zeros((60, 100), dtype=bool)
    expected[:, 10:90] = flags == CLOUD
    np.testing.assert_array_equal(warped.read_excluded(), expected[::factor, ::factor])
    np.testing.assert_array_equal(warped.read_excluded((5, 10, 8, 9)), expected[::factor, ::factor][5:13, 10:19])
    assert WarpedRaster(masked_raster("all")[0], Grid(CRS_UTM, moved, 30, 50)).read_excluded() is None


def test_damage_of_bands_and_of_fmask_is_named_by_file(tmp_path):
    folder = write_hls_granule(tmp_path)
    damaged = sorted(folder.glob("*.B03.tif")) + sorted(folder.glob("*.Fmask.tif"))
    for path in damaged:
        with rasterio.open(path) as dataset:
            values, profile = dataset.read(), {**dataset.profile, **TILED, "compress": "deflate"}
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(values)
    damage_block(damaged[0], 0, 1)
    damage_block(damaged[1], 2, 0)
    processor = tiny_processor()
    scene = open_scene(folder, image_processor=processor, fmask=["cloud"], on_read_error="nodata")
    strips = list(predict_strips(PixelModel(), processor, scene, plan_for(scene), on_read_error="nodata"))
    bad = join_windows(window for strip in strips for window in strip.bad_windows)
    names = {name for name, _ in bad}
    assert names == {str(path) for path in damaged}
    expected = np.zeros(SIZE, dtype=bool)
    for _, (row, column, height, width) in bad:
        expected[row : row + height, column : column + width] = True
    assert expected[:32, 32:64].all()
    assert expected[64:, :32].all()
    np.testing.assert_array_equal(np.concatenate([strip.nodata for strip in strips]), expected)


def test_a_block_across_strips_is_listed_once(tmp_path):
    path = write_scene(tmp_path / "a.tif", scene_pixels(96, 64), compress="deflate", **TILED)
    damage_block(path, 1, 1)
    result = predict_scene(
        tiny_model(), tiny_processor(), path, tmp_path / "map.tif", on_read_error="nodata", show_progress=False
    )
    assert result.report["bad_windows"] == [{"file": str(path), "window": [32, 32, 32, 32]}]


def copy_whole(source, target, **options):
    """In one go, as HLS and Sentinel-2 files are written: the directory lies before the pixels."""
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32}
    rasterio.shutil.copy(source, target, driver="GTiff", **tiles, **options)


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_what_a_truncated_file_still_holds_is_mapped(tmp_path, compress):
    pixels = scene_pixels(96, 64)
    path = tmp_path / "a.tif"
    copy_whole(write_scene(tmp_path / "source.tif", pixels), path, compress=compress)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    whole = tiny_model(), tiny_processor(), path, tmp_path / "whole.tif"
    expected = predict_scene(*whole, show_progress=False).mask
    path.write_bytes(path.read_bytes()[: offset + 10])
    arguments = tiny_model(), tiny_processor(), path, tmp_path / "map.tif"
    with pytest.raises(GeoTiffError, match="beyond its end"):
        predict_scene(*arguments, show_progress=False)
    result = predict_scene(*arguments, on_read_error="nodata", show_progress=False)
    lost = np.zeros((96, 64), dtype=bool)
    lost[32:, 32:] = lost[64:] = True
    np.testing.assert_array_equal(result.mask == 255, lost)
    np.testing.assert_array_equal(result.mask[:8, :8], expected[:8, :8])
    windows = {tuple(bad["window"]) for bad in result.report["bad_windows"]}
    assert windows == {(32, 32, 64, 32), (64, 0, 32, 32)}
    raster = GeoTiffRaster(path, allow_missing_blocks=True)
    np.testing.assert_array_equal(raster.read(window=(0, 0, 32, 64)), pixels[:, :32])
    with pytest.raises(GeoTiffDecodeError, match=r"a\.tif.*damaged"):
        raster.read()


@pytest.mark.parametrize("kind", ["in one go", "band names last"])
def test_a_truncated_file_never_loses_its_mask_unnoticed(tmp_path, kind):
    """Where the lost end held the directory of the mask, or another one, the rest would say less than it seems to."""
    path, copy = write_scene(tmp_path / "a.tif", scene_pixels(64, 64), compress="deflate", **TILED), tmp_path / "b.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(np.tile(np.uint8([0, 255]), (64, 32)))
        copy_whole(path, copy, compress="deflate")
    content = (copy if kind == "in one go" else path).read_bytes()
    expected = GeoTiffRaster(content=content)
    opened = 0
    for size in range(0, len(content), 211):
        try:
            raster = GeoTiffRaster(content=content[:size], allow_missing_blocks=True)
        except GeoTiffError:
            continue
        opened += 1
        assert raster._header == expected._header
        with suppress(GeoTiffDecodeError):
            np.testing.assert_array_equal(raster.read_nodata_mask(), expected.read_nodata_mask())
    assert opened > 100 or kind == "band names last"


def test_directories_that_lead_back_to_themselves_end(tmp_path):
    path = write_scene(tmp_path / "a.tif", compress="none")
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    after = start + 2 + 12 * int.from_bytes(content[start : start + 2], "little")
    content[after : after + 4] = content[4:8]
    path.write_bytes(content[:-10])
    with pytest.raises(GeoTiffError, match="truncated"):
        GeoTiffRaster(path, allow_missing_blocks=True)


@pytest.mark.parametrize("on_read_error", ["raise", "nodata"])
def test_a_file_that_is_replaced_while_it_is_read_is_named(tmp_path, on_read_error):
    path = write_scene(tmp_path / "a.tif", scene_pixels(96, 64), blockysize=8)
    scene = open_scene(path, image_processor=tiny_processor())
    strips = predict_strips(
        PixelModel(), tiny_processor(), scene, TilePlan(96, 64, (32, 32), (32, 32)), on_read_error=on_read_error
    )
    write_scene(tmp_path / "b.tif", scene_pixels(50, 40))
    shutil.move(tmp_path / "b.tif", path)
    with pytest.raises(
        GeoTiffError, match=r"a\.tif: expected 6 bands of 96 x 64 .* found 6 bands of 50 x 40 .*changed"
    ):
        list(strips)


def test_a_frame_without_any_data_is_warned_of_and_the_shares_are_reported(tmp_path):
    pixels = [scene_pixels(72, 90, seed=seed) for seed in range(3)]
    pixels[1][:] = -9999
    pixels[2][:, :18] = -9999
    paths = [write_scene(tmp_path / f"{index}.tif", date) for index, date in enumerate(pixels)]
    messages = []
    original, logger.warning = logger.warning, messages.append
    try:
        result = predict_scene(
            tiny_model(3), tiny_processor(3), paths, tmp_path / "map.tif", overlap=0.5, show_progress=False
        )
    finally:
        logger.warning = original
    assert result.report["frame_nodata_fractions"] == [0, 1, 0.25]
    assert len(messages) == 1
    assert messages[0].startswith(str(paths[1]))
    assert "found none in any pixel" in messages[0]


def test_pixels_of_infinite_values_alone_have_no_class():
    pixels = scene_pixels(64, 64).astype(np.float32)
    pixels[:, 5:9, 7] = np.inf
    pixels[2:, 40, 40] = np.inf  # the other bands are there
    scene = make_scene(pixels)
    _, nodata = whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene))
    expected = np.zeros((64, 64), dtype=bool)
    expected[5:9, 7] = True
    np.testing.assert_array_equal(nodata, expected)


def write_with_alpha(path, pixels, missing):
    """Bands without descriptions, and an alpha band after them."""
    size = {"count": len(pixels) + 1, "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=CRS_UTM, transform=TRANSFORM, **size) as file:
        file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
        file.write(np.concatenate([pixels, np.where(missing, 0, 255)[None].astype(pixels.dtype)]))
    return path


@pytest.mark.parametrize("kind", ["infinite", "lowest float", "netCDF fill", "mixed", "tag", "one band", "alpha"])
@pytest.mark.parametrize("nodata_rule", ["all", "any"])
def test_a_scene_in_memory_has_nodata_where_a_streamed_one_has_it(tmp_path, kind, nodata_rule):
    pixels, missing = scene_pixels(40, 50).astype(np.float32), np.zeros((40, 50), dtype=bool)
    missing[:9, :13] = True
    fill = {"lowest float": np.finfo("float32").min, "netCDF fill": 9.96921e36, "tag": -9999.9}.get(kind, np.inf)
    if kind != "alpha":
        pixels[:, missing] = fill
    if kind == "mixed":
        pixels[::2, missing] = np.nan
    elif kind == "one band":
        pixels[1:, missing] = 1000
        missing &= nodata_rule == "any"
    path = tmp_path / "scene.tif"
    if kind == "alpha":
        write_with_alpha(path, pixels, missing)
    else:
        tag = {"lowest float": -3.4e38, "tag": -9999.9}.get(kind)
        write_geotiff(path, pixels, crs=CRS_UTM, transform=TRANSFORM, nodata=tag)
    processor = tiny_processor(nodata_rule=nodata_rule)
    pipe = GeospatialSegmentationPipeline(model=tiny_model(), image_processor=processor, device="cpu")
    in_memory = pipe(str(path)).mask == 255
    output = tmp_path / "map.tif"
    streamed = predict_scene(tiny_model(), processor, [path], output, show_progress=False).mask == 255
    np.testing.assert_array_equal(in_memory, missing)
    np.testing.assert_array_equal(streamed, missing)


def test_the_fourth_of_four_bands_is_alpha_for_a_model_of_three_bands_only(tmp_path):
    missing = np.zeros((8, 8), dtype=bool)
    missing[:2] = True
    path = write_with_alpha(tmp_path / "rgba.tif", scene_pixels(8, 8, bands=3).astype(np.uint8), missing)
    three, four = (PrithviImageProcessor(bands=list("ABCD")[:count], do_normalize=False) for count in (3, 4))
    raster = GeoTiffRaster(path)
    assert three.find_bands(raster.descriptions, raster.count) == [0, 1, 2]
    np.testing.assert_array_equal(three(raster, return_nodata_mask=True)["nodata_mask"][0], missing)
    assert four.find_bands(raster.descriptions, raster.count) == [0, 1, 2, 3]
    assert not four(raster, return_nodata_mask=True)["nodata_mask"][0].any()
    with pytest.raises(ValueError, match="expected 2 bands"):
        PrithviImageProcessor(bands=["A", "B"], do_normalize=False).find_bands(raster.descriptions, raster.count)
