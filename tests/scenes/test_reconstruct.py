# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reconstructions of windows: what is hidden, units, nodata, pictures and GeoTIFFs."""

import numpy as np
import pytest
import rasterio
import torch

from prithvi_hf import PrithviConfig, PrithviForPreTraining, PrithviImageProcessor
from prithvi_hf.scenes.reconstruct import reconstruct_window
from prithvi_hf.scenes.scene import open_scene
from tests.pretrain_factory import SIZES, smooth_pixels, write_smooth_scene


def make_model(num_frames=1, **options):
    torch.manual_seed(0)
    return PrithviForPreTraining(PrithviConfig(num_frames=num_frames, **SIZES, **options)).eval()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_smooth_scene(tmp_path_factory.mktemp("scene") / "a.tif", gap=(slice(30, 44), slice(50, 60)))


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_seen_patches_are_as_in_the_file_and_hidden_ones_predicted_in_its_units(path, norm_pix_loss):
    processor = PrithviImageProcessor(num_frames=1)
    model, scene = make_model(norm_pix_loss=norm_pix_loss), open_scene(path, processor)
    found = reconstruct_window(model, processor, scene, (20, 30, 32, 48), seed=1)
    pixels = smooth_pixels(96, 110)[:, 20:52, 30:78]
    assert found.hidden.shape == (1, 32, 48)
    assert found.hidden.mean() == 5 / 6
    valid, seen = ~found.nodata_mask[0], ~found.hidden[0]
    assert (~valid).sum() == 14 * 10
    assert np.allclose(found.values[:, 0][:, valid], pixels[:, valid], atol=0.1)
    assert np.array_equal(found.reconstruction[:, 0][:, seen], found.values[:, 0][:, seen])
    assert not np.allclose(found.reconstruction[:, 0][:, ~seen & valid], pixels[:, ~seen & valid], atol=1)
    patch = (slice(None), 0, slice(0, 16), slice(32, 48))
    assert found.hidden[0, 0, 32]
    if norm_pix_loss:  # a prediction of 0 is then the mean of the patch
        with torch.no_grad():
            model.decoder.prediction.weight.zero_()
        flat = reconstruct_window(model, processor, scene, (20, 30, 32, 48), seed=1).reconstruction[patch]
        means, stds = np.array(processor.image_mean), np.array(processor.image_std)
        mean = ((pixels[:, :16, 32:48] - means[:, None, None]) / stds[:, None, None]).mean()
        assert np.allclose(flat, (mean * stds + means)[:, None, None], atol=1)


def test_the_seed_chooses_what_is_hidden_and_the_ratio_how_much(path):
    processor = PrithviImageProcessor(num_frames=1)
    model, scene = make_model(), open_scene(path, processor)
    masks = [reconstruct_window(model, processor, scene, (0, 0, 64, 64), seed=seed).hidden for seed in (0, 0, 1)]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    nothing = reconstruct_window(model, processor, scene, mask_ratio=0)
    assert not nothing.hidden.any()
    assert nothing.loss == 0
    assert nothing.values.shape == (6, 1, 32, 32)  # the model's image size, in the middle
    assert np.array_equal(nothing.values, nothing.reconstruction)


def test_a_geotiff_is_in_its_place_with_dates_in_the_names_of_its_bands(path, tmp_path):
    other = write_smooth_scene(tmp_path / "b.tif", seed=1)
    processor = PrithviImageProcessor(num_frames=2, rescale_factor=0.0001, image_mean=[0.1] * 6, image_std=[0.1] * 6)
    scene = open_scene([path, other], processor, dates=["2022-06-01", "2022-07-01"])
    found = reconstruct_window(make_model(2), processor, scene, (16, 40, 32, 32), mask_ratio=0)
    found.to_geotiff(tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset, rasterio.open(path) as source:
        assert dataset.descriptions[0] == "BLUE 2022-06-01"
        assert dataset.descriptions[11] == "SWIR_2 2022-07-01"
        assert dataset.crs == source.crs
        assert dataset.xy(0, 0) == pytest.approx(source.xy(16, 40))
        pixels = dataset.read()
    gap = np.zeros((32, 32), dtype=bool)
    gap[14:28, 10:20] = True
    assert np.array_equal(np.isnan(pixels[0]), gap)
    assert np.allclose(pixels[6:], smooth_pixels(96, 110, 1)[:, 16:48, 40:72], atol=0.1)
    found.to_png(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_reconstructed_is_refused(path):
    processor = PrithviImageProcessor(num_frames=1)
    model, scene = make_model(), open_scene(path, processor)
    with pytest.raises(ValueError, match="at least one patch, 16 x 16 pixels, found 8 x 32"):
        reconstruct_window(model, processor, scene, (0, 0, 8, 32))
    with pytest.raises(ValueError, match="inside 96 x 110 pixels"):
        reconstruct_window(model, processor, scene, (80, 0, 32, 32))
    with pytest.raises(ValueError, match="expected data in the window"):
        reconstruct_window(make_model(patch_size=[1, 8, 8]), processor, scene, (32, 50, 8, 8))
    with pytest.raises(ValueError, match="num_frames: expected 2"):
        reconstruct_window(make_model(2), processor, scene)
