# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of scenes: the values of the encoder, where they are, and what happens at borders and without data."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from prithvi_hf import PrithviForPreTraining, PrithviForSemanticSegmentation, PrithviModel, embed_scene
from prithvi_hf.models.prithvi.coordinates_prithvi import CoordinatesWarning
from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import find_center
from prithvi_hf.scenes import open_scene
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


def embed(model, frames, output: Path, **options) -> np.ndarray:
    """The embeddings of a scene as (bands, rows, columns)."""
    processor = tiny_processor(model.config.num_frames)
    report = embed_scene(model, processor, frames, output, show_progress=False, **options)
    with rasterio.open(output) as dataset:
        embeddings = dataset.read()
        assert (report["bands"], report["height"], report["width"]) == embeddings.shape
        assert np.isclose(report["nodata_fraction"], np.isnan(embeddings[0]).mean())
    return embeddings


def encode(model, files: list[Path], window: tuple[slice, slice] = np.s_[:, :], layer: int = -1) -> np.ndarray:
    """The patches (T, E, rows, columns) of a window, padded to whole patches, as the encoder gives them."""
    images = [GeoTiffRaster(file).read()[(slice(None), *window)].astype(np.float32) for file in files]
    inputs = tiny_processor(len(files))([images[0] if len(files) == 1 else tuple(images)], return_tensors="pt")
    pixel_values, _ = pad_by_reflection(inputs["pixel_values"], (16, 16))
    with torch.no_grad():
        outputs = model.base_model(pixel_values, output_hidden_states=True)
    tokens = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer + 1]
    rows, columns = (side // 16 for side in pixel_values.shape[-2:])
    return tokens[0, 1:].unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 2).numpy()


@pytest.mark.parametrize("size", [(32, 32), (50, 75), (9, 40)])
def test_a_scene_in_one_window_has_the_patches_of_the_encoder(size: tuple[int, int], tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(*size))
    found = embed(tiny_model(), scene, tmp_path / "embeddings.tif", window=80)
    np.testing.assert_allclose(found, encode(tiny_model(), [scene])[0], atol=1e-5)
    with rasterio.open(tmp_path / "embeddings.tif") as dataset:
        assert dataset.crs == CRS_UTM
        assert dataset.transform.almost_equals(TRANSFORM @ Affine.scale(16))
        assert dataset.descriptions[:2] == ("channel_0", "channel_1")


def test_overlapping_windows_are_averaged_and_patches_between_two_count_by_area(tmp_path: Path) -> None:
    scene, model = write_scene(tmp_path / "scene.tif", scene_pixels(32, 56)), tiny_model()
    found = embed(model, scene, tmp_path / "embeddings.tif")
    # Windows of 32 begin at 0, 16 and, for the last one, at 24: its first patch is half in column 1, half in column 2.
    first, second, last = (encode(model, [scene], np.s_[:, left : left + 32])[0] for left in (0, 16, 24))
    expected = [
        first[..., 0],
        (first[..., 1] + second[..., 0] + 0.5 * last[..., 0]) / 2.5,
        (second[..., 1] + 0.5 * last[..., 0] + 0.5 * last[..., 1]) / 2,
        last[..., 1],
    ]
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), atol=1e-5)


@pytest.mark.parametrize("blending", ["uniform", "cosine", "gaussian"])
def test_weights_sum_to_one_everywhere(blending: str, tmp_path: Path) -> None:
    model = tiny_model(num_frames=2)
    torch.nn.init.zeros_(model.prithvi.layernorm.weight)
    torch.nn.init.constant_(model.prithvi.layernorm.bias, 3.0)
    scenes = [write_scene(tmp_path / f"{name}.tif", scene_pixels(101, 83)) for name in "ab"]
    found = embed(model, scenes, tmp_path / "embeddings.tif", blending=blending, overlap=0.4)
    assert found.shape == (32, 7, 6)
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)


def test_patches_without_any_data_are_nan_and_the_others_do_not_change(tmp_path: Path) -> None:
    pixels = scene_pixels(80, 64)
    pixels[:, :33, :40] = -9999  # patches of rows 0 and 1 and columns 0 and 1 in full; others in part
    pixels[:, :, 62:] = -9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    found = embed(tiny_model(), scene, tmp_path / "embeddings.tif", overlap=0.0)
    expected = np.zeros((5, 4), dtype=bool)
    expected[:2, :2] = True
    assert np.array_equal(np.isnan(found).all(axis=0), expected)
    assert np.array_equal(np.isnan(found).any(axis=0), expected)
    empty = write_scene(tmp_path / "empty.tif", np.full_like(pixels, -9999))
    assert np.isnan(embed(tiny_model(), empty, tmp_path / "none.tif")).all()


def test_layers_frames_and_half_precision(tmp_path: Path) -> None:
    model = tiny_model(num_frames=2)
    scenes = [write_scene(tmp_path / f"{name}.tif", scene_pixels(32, 32, seed=seed)) for seed, name in enumerate("ab")]
    patches = encode(model, scenes)
    mean = embed(model, scenes, tmp_path / "mean.tif")
    np.testing.assert_allclose(mean, patches.mean(axis=0), atol=1e-5)
    separate = embed(model, scenes, tmp_path / "separate.tif", frames_as="separate", layer=0)
    np.testing.assert_allclose(separate, patches.reshape(64, 2, 2), atol=1e-5)  # layer 0 is the last one here
    half = embed(model, scenes, tmp_path / "half.tif", embedding_dtype="float16")
    assert np.array_equal(half, mean.astype(np.float16).astype(np.float32))
    with rasterio.open(tmp_path / "separate.tif") as dataset:
        assert dataset.descriptions[31:33] == ("frame_1_channel_31", "frame_2_channel_0")
        assert dataset.tags()["layer"] == "0"


def test_an_earlier_layer_comes_as_it_is(tmp_path: Path) -> None:
    config = tiny_model().config
    config.num_hidden_layers = 3
    model = PrithviModel(config).eval()
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(32, 32))
    found = embed(model, scene, tmp_path / "embeddings.tif", layer=-2)
    np.testing.assert_allclose(found, encode(model, [scene], layer=1)[0], atol=1e-5)


def test_a_model_that_enlarges_images_has_smaller_patches(tmp_path: Path) -> None:
    model = tiny_model(input_upsampling=2)
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 37))
    found = embed(model, scene, tmp_path / "embeddings.tif")
    assert found.shape == (32, 5, 5)
    assert np.isfinite(found).all()
    with rasterio.open(tmp_path / "embeddings.tif") as dataset:
        assert dataset.transform.almost_equals(TRANSFORM @ Affine.scale(8))


def test_a_model_that_takes_dates_and_places_is_given_those_of_each_tile(tmp_path: Path) -> None:
    model = tiny_model(coords_encoding=["time", "location"])
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(32, 64))
    found = embed(model, scene, tmp_path / "embeddings.tif", dates=["2022-06-07"], overlap=0.0)
    raster = GeoTiffRaster(scene).select(window=(0, 32, 32, 32))
    pixel_values = tiny_processor()([raster], return_tensors="pt")["pixel_values"]
    latitude, longitude = find_center(CRS_UTM, TRANSFORM, (0, 32, 32, 32), "tile")
    coordinates = (torch.tensor([[[2022.0, 157.0]]]), torch.tensor([[latitude, longitude]]))
    with torch.no_grad():
        tokens = model.prithvi(pixel_values, *coordinates).last_hidden_state[0, 1:]
    np.testing.assert_allclose(found[:, :, 2:], tokens.T.reshape(32, 2, 2), atol=1e-4)
    with pytest.warns(CoordinatesWarning, match="takes the date"):
        embed(model, scene, tmp_path / "embeddings.tif")


def test_every_model_with_an_encoder_gives_the_same(tmp_path: Path) -> None:
    config = tiny_model().config
    config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads = 32, 1, 2
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(32, 32))
    expected = embed(model, scene, tmp_path / "embeddings.tif")
    assert np.array_equal(embed(PrithviModel.from_pretrained(tmp_path / "model"), scene, tmp_path / "b.tif"), expected)
    pretraining = PrithviForPreTraining(config).eval()
    pretraining.prithvi.load_state_dict(model.prithvi.state_dict())
    assert np.array_equal(embed(pretraining, scene, tmp_path / "c.tif"), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 1}, "layer: expected one of the model's 1 layers, 0 to 0 or -1 to -1, found 1"),
        ({"frames_as": "sum"}, "frames_as: expected one of mean, separate"),
        ({"embedding_dtype": "int8"}, "embedding_dtype: expected one of float32, float16"),
        ({"overlap": 1.0}, "overlap is a fraction"),
        ({"overwrite": False}, "exists already"),
    ],
)
def test_wrong_options_are_refused_and_nothing_changes(options: dict, message: str, tmp_path: Path) -> None:
    scene, output = write_scene(tmp_path / "scene.tif"), tmp_path / "embeddings.tif"
    output.write_bytes(b"kept")
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(tiny_model(), scene, output, **options)
    assert output.read_bytes() == b"kept"


def test_options_that_do_not_exist_or_come_too_late_are_refused(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    with pytest.raises(TypeError, match="tta"):
        embed(tiny_model(), scene, tmp_path / "embeddings.tif", tta="d4")
    with pytest.raises(TypeError, match="open takes no options, found \\['scale'\\]"):
        embed(tiny_model(), open_scene(scene), tmp_path / "embeddings.tif", scale="ignore")
    with pytest.raises(ValueError, match="is also an input"):
        embed(tiny_model(), scene, scene)


def test_values_that_are_not_finite_and_models_without_encoder_are_errors(tmp_path: Path) -> None:
    scene, model = write_scene(tmp_path / "scene.tif"), tiny_model()
    torch.nn.init.constant_(model.prithvi.layernorm.bias, torch.inf)
    with pytest.raises(ValueError, match="not finite"):
        embed(model, scene, tmp_path / "embeddings.tif")
    config = tiny_model().config
    config.architecture = "unet"
    with pytest.raises(ValueError, match="with Prithvi's encoder, found PrithviForSemanticSegmentation without one"):
        embed(PrithviForSemanticSegmentation(config), scene, tmp_path / "embeddings.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_scene_of_more_rows_than_a_block_of_the_file_comes_out_as_its_parts(tmp_path: Path) -> None:
    pixels = scene_pixels(80 * 16, 32)
    scene = write_scene(tmp_path / "scene.tif", pixels)
    model = tiny_model()
    whole = embed(model, scene, tmp_path / "embeddings.tif", overlap=0.0)
    part = write_scene(tmp_path / "part.tif", pixels[:, 70 * 16 : 72 * 16])
    assert whole.shape == (32, 80, 2)
    np.testing.assert_allclose(whole[:, 70:72], embed(model, part, tmp_path / "part_embeddings.tif"), atol=1e-5)
