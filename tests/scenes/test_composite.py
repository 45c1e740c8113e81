# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Composites of granules: units, masks, tiles that overlap, and the file that is written."""

import json
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rio_cogeo import cog_validate

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.cog import BLOCK_SIZE, is_own_map
from prithvi_hf.outputs.staging import staging_folder
from prithvi_hf.rasters.geotiff_raster import GeoTiffError
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.composite import (
    COUNT_BAND,
    digest_scenes,
    draw_days,
    is_made_of,
    make_processor,
    open_options,
    write_composite,
)
from prithvi_hf.scenes.scene import open_scene
from tests.command_line import run
from tests.granule_factory import (
    CLOUD,
    HLS_TRANSFORM,
    LANDSAT_8,
    REFLECTANCE,
    SIZE,
    product_folder,
    write_bands,
    write_hls_granule,
    write_sentinel2,
)
from tests.scene_factory import scene_pixels, write_scene


PROCESSOR = make_processor(None)
DAYS = ((2021, 6, 1), (2021, 6, 9), (2021, 6, 17))


def open_all(frames, fmask=(), **options):
    opening = open_options(FrameOptions(fmask=fmask, **options))
    return [open_scene([frame] if isinstance(frame, list) else frame, PROCESSOR, opening) for frame in frames]


def compose(frames, output, method="median", fmask=(), **options):
    return write_composite(
        open_all(frames, fmask), PROCESSOR, output, method=method, fmask=fmask, show_progress=False, **options
    )


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_a_median_of_clear_dates_is_written_as_hls_writes_reflectance(tmp_path):
    pixels = np.stack([scene_pixels(*SIZE, seed=seed) for seed in range(3)])
    masks = np.zeros((3, *SIZE), dtype=np.uint8)
    masks[0, :20], masks[1, 10:40], masks[:, 50:60, 50:] = CLOUD, CLOUD, CLOUD
    pixels[2, :, :, :7] = -9999
    folders = [
        write_hls_granule(tmp_path, day=day, pixels=values, fmask=mask)
        for day, values, mask in zip(DAYS, pixels, masks, strict=True)
    ]
    result = compose(folders, tmp_path / "median.tif", fmask=("cloud",))
    clear = (masks == 0) & (pixels[:, 0] != -9999)
    expected = np.full((6, *SIZE), -9999)
    for row, column in np.ndindex(SIZE):
        if clear[:, row, column].any():
            expected[:, row, column] = np.rint(np.median(pixels[clear[:, row, column], :, row, column], axis=0))
    found = read(tmp_path / "median.tif")
    assert np.abs(found[:6] - expected).max() <= 1  # rounding of halves
    np.testing.assert_array_equal(found[6], clear.sum(axis=0))
    assert result.covered == clear.any(axis=0).mean()
    assert result.dates == tuple(f"2021-06-{day:02} HLS S30" for day in (1, 9, 17))
    assert cog_validate(tmp_path / "median.tif", strict=True)[0]
    assert not is_own_map(tmp_path / "median.tif")
    with rasterio.open(tmp_path / "median.tif") as dataset:
        assert dataset.descriptions == (*PRITHVI_BANDS, COUNT_BAND)
        assert (dataset.nodata, dataset.dtypes[0], dataset.scales) == (-9999, "int16", (0.0001,) * 6 + (1.0,))
        tags = dataset.tags()
    assert (tags["COMPOSITE"], tags["MASKED"]) == ("median", "cloud")
    assert json.loads(tags["SOURCES"]) == [folder.name for folder in folders] or len(json.loads(tags["SOURCES"])) == 3


def test_the_clearest_date_comes_first(tmp_path):
    masks = np.zeros((2, *SIZE), dtype=np.uint8)
    masks[0, :30], masks[1, :10] = CLOUD, CLOUD
    values = [np.full((6, *SIZE), number, dtype=np.int16) for number in (1000, 2000)]
    folders = [
        write_hls_granule(tmp_path, day=day, pixels=one, fmask=mask)
        for day, one, mask in zip(DAYS, values, masks, strict=False)
    ]
    compose(folders, tmp_path / "a.tif", "clearest", ("cloud",))
    found = read(tmp_path / "a.tif")
    assert set(np.unique(found[0, 10:])) == {2000}
    assert set(np.unique(found[:6, :10])) == {-9999}


def test_sensors_with_other_numbers_come_to_the_same_units(tmp_path):
    """Landsat's scale and offset, and Sentinel-2's offset, are applied once."""
    names = {band: f"LC08_L2SP_044034_20210508_20210518_02_T1_{code}.TIF" for band, code in LANDSAT_8.items()}
    write_bands(tmp_path / "landsat", names, nodata=0)
    codes = ("B02", "B03", "B04", "B8A", "B11", "B12")
    for baseline, offset in (("0400", 1000), ("0300", 0)):
        bands = {
            code: np.full((24, 24), round(REFLECTANCE[band] * 10_000) + offset, dtype=np.uint16)
            for band, code in zip(PRITHVI_BANDS, codes, strict=True)
        }
        write_sentinel2(product_folder(tmp_path, baseline), bands)
    wanted = [round(10_000 * REFLECTANCE[band]) for band in PRITHVI_BANDS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in (tmp_path / "landsat", product_folder(tmp_path, "0400"), product_folder(tmp_path, "0300")):
            compose([folder], tmp_path / "a.tif")
            np.testing.assert_array_equal(read(tmp_path / "a.tif")[:6, 5, 5], wanted)


def test_a_composite_is_a_frame_for_models_of_either_unit(tmp_path):
    pixels = scene_pixels(*SIZE)
    compose([write_hls_granule(tmp_path, pixels=pixels)], tmp_path / "a.tif")
    scene = open_scene(tmp_path / "a.tif", PrithviImageProcessor())
    bands = PrithviImageProcessor().find_bands(scene.frames[0].descriptions, scene.frames[0].count)
    np.testing.assert_array_equal(scene.frames[0].read(bands), pixels)
    reflectance = PrithviImageProcessor(image_mean=[0.1] * 6, image_std=[0.05] * 6)
    scene = open_scene(tmp_path / "a.tif", reflectance)
    np.testing.assert_allclose(scene.frames[0].read(bands), pixels / 10_000, rtol=1e-6)


def test_tiles_of_one_day_count_once_where_they_overlap(tmp_path):
    beside = Affine(30, 0, HLS_TRANSFORM.c + 30 * 60, 0, -30, HLS_TRANSFORM.f)
    values = [np.full((6, *SIZE), number, dtype=np.int16) for number in (1000, 1000, 4000)]
    folders = [
        write_hls_granule(tmp_path, day=DAYS[0], pixels=values[0]),
        write_hls_granule(tmp_path, day=DAYS[0], pixels=values[1], tile="10SHJ", transform=beside),
        write_hls_granule(tmp_path, day=DAYS[1], pixels=values[2]),
    ]
    result = compose(folders, tmp_path / "a.tif")
    found = read(tmp_path / "a.tif")
    assert result.size == (72, 150)
    np.testing.assert_array_equal(found[6, 0], [2] * 90 + [1] * 60)
    np.testing.assert_array_equal(found[0, 0], [2500] * 90 + [1000] * 60)


def test_a_resolution_and_a_stack_of_all_bands(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", np.full((6, 40, 50), 1234, dtype=np.int16))
    result = compose([scene], tmp_path / "a.tif", resolution=20)
    assert result.size == (20, 25)
    assert set(np.unique(read(tmp_path / "a.tif")[:6])) == {1234}


def test_what_cannot_be_composed_is_refused_and_nothing_written(tmp_path):
    reflectance = write_scene(tmp_path / "f.tif", scene_pixels(40, 50).astype(np.float32) / 10_000)
    whole = write_scene(tmp_path / "i.tif")
    for frames, options, message in (
        ([], {}, "Expected at least one scene"),
        ([reflectance], {}, "found float32, of which nothing tells the units"),
        ([whole], {"method": "mean"}, "method: expected one of median, clearest"),
    ):
        with pytest.raises(ValueError, match=message):
            compose(frames, tmp_path / "out.tif", **options)
    with pytest.raises(ValueError, match="is also an input"):
        compose([whole], whole)
    with pytest.raises(ValueError, match="exists already"):
        compose([whole], reflectance, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.tif", "i.tif"]


def test_days_are_drawn_side_by_side_whatever_their_number(tmp_path):
    """Bright clouds are white and land is not, in one stretch of colours."""
    land, cloud = np.full((6, *SIZE), 800, dtype=np.int16), np.full((6, *SIZE), 8000, dtype=np.int16)
    folders = [write_hls_granule(tmp_path, day=(2021, 6, 1 + day), pixels=land + 50 * day) for day in range(4)]
    folders.append(write_hls_granule(tmp_path, day=(2021, 6, 20), pixels=cloud))
    draw_days(open_all(folders), PROCESSOR, tmp_path / "days.png")
    with Image.open(tmp_path / "days.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    height, width = pixels.shape
    bright, dark = pixels[3 * height // 4, width // 8], pixels[height // 4, width // 8]
    assert bright > 200 > dark
    draw_days(open_all(folders[:1]), PROCESSOR, tmp_path / "one.png")


def test_a_composite_knows_what_it_is_made_of(tmp_path):
    scenes = open_all([write_hls_granule(tmp_path)])
    path = tmp_path / "a.tif"
    write_composite(scenes, PROCESSOR, path, show_progress=False)
    assert is_made_of(path, digest_scenes(scenes, "median", ()))
    assert not is_made_of(path, digest_scenes(scenes, "clearest", ()))
    assert not is_made_of(tmp_path / "none.tif", "a")
    path.write_bytes(b"no GeoTIFF")
    assert not is_made_of(path, digest_scenes(scenes, "median", ()))


def test_a_run_that_was_killed_continues_with_the_strips_that_are_there(tmp_path):
    pixels = np.full((6, 6 * BLOCK_SIZE + 40, 200), 700, dtype=np.int16)
    for day in DAYS:
        write_hls_granule(tmp_path / "granules", day=day, pixels=pixels)
    output = tmp_path / "out.tif"
    words = [str(word) for word in ("composite", "--scenes", tmp_path / "granules", "--output", output, "--quiet")]
    process = subprocess.Popen([sys.executable, "-m", "prithvi_hf.cli", *words])
    while process.poll() is None and not list(staging_folder(output).glob("strip_*.npz")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert not output.exists()
    first = staging_folder(output) / "strip_000000.npz"
    with np.load(first) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["strip"][:6] += 1  # to see that this strip is not composed again
    np.savez(first, **arrays)
    assert run(*words) == 0
    values = read(output)
    assert (values[:6, :BLOCK_SIZE] == 701).all()
    assert (values[:6, BLOCK_SIZE:] == 700).all()
    assert (values[6] == 3).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["granules", "out.tif"]


def test_strips_of_other_scenes_or_options_are_not_used_and_an_error_says_what_is_kept(tmp_path):
    pixels = np.full((6, BLOCK_SIZE + 40, 60), 700, dtype=np.int16)
    folder = write_hls_granule(tmp_path / "granules", pixels=pixels)
    scenes = open_all([folder])
    blue = folder / f"{folder.name}.B02.tif"
    sound = blue.read_bytes()
    with rasterio.open(blue) as dataset:
        block = -(-BLOCK_SIZE // dataset.block_shapes[0][0])  # the first one below the first strip
        place = int(dataset.get_tag_item(f"BLOCK_OFFSET_0_{block}", "TIFF", bidx=1))
    blue.write_bytes(sound[:place] + b"x" * (len(sound) - place))
    with pytest.raises(GeoTiffError, match="cannot be decoded") as caught:
        write_composite(scenes, PROCESSOR, tmp_path / "out.tif", show_progress=False)
    assert "1 of 2 parts of out.tif are kept" in caught.value.__notes__[0]
    blue.write_bytes(sound)
    with pytest.warns(UserWarning, match="belong to another run"):
        write_composite(scenes, PROCESSOR, tmp_path / "out.tif", method="clearest", show_progress=False)
    assert (read(tmp_path / "out.tif")[:6] == 700).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["granules", "out.tif"]
