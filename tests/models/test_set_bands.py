"""`set_bands`: kernels follow their bands by name, exactly."""

import pytest
import torch

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviModel


HLS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
SENTINEL_2 = ["B02", "B03", "B04", "B8A", "B11", "B12"]
ORDER = [3, 0, 5, 2, 4, 1]


def tiny_model(model_class=PrithviForSemanticSegmentation, **overrides):
    torch.manual_seed(0)
    values = {
        "image_size": 32,
        "num_frames": 2,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "neck_hidden_size": 8,
        "head_hidden_size": 8,
    }
    return model_class(PrithviConfig(**{**values, **overrides})).eval()


def kernels(model) -> torch.nn.Parameter:
    return model.base_model.embeddings.patch_embeddings.weight


@torch.no_grad()
def output(model, pixels):
    """In float64, where the order in which bands are added up does not show."""
    return model.double()(pixels)[0]


@pytest.fixture
def pixels():
    return torch.randn(2, 6, 2, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("model_class", [PrithviModel, PrithviForSemanticSegmentation])
@pytest.mark.parametrize("names", [HLS, SENTINEL_2, ["blue", "Green", "B04", "Narrow NIR", "swir-1", "SWIR22"]])
def test_bands_in_another_order(model_class, names, pixels):
    model = tiny_model(model_class)
    expected = output(model, pixels)
    bands = [names[index] for index in ORDER]
    assert model.set_bands(bands) == []
    assert (model.config.bands, model.config.num_channels) == (bands, 6)
    torch.testing.assert_close(output(model, pixels[:, ORDER]), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(output(model, pixels), expected, atol=1e-3)


def test_a_band_less_is_a_band_of_zeros(pixels):
    model = tiny_model()
    kept = [0, 1, 3, 5]
    expected = output(model, torch.zeros_like(pixels).index_copy(1, torch.tensor(kept), pixels[:, kept]))
    assert model.set_bands([HLS[index] for index in kept]) == []
    assert model.config.num_channels == model.prithvi.embeddings.patch_embeddings.in_channels == 4
    torch.testing.assert_close(output(model, pixels[:, kept]), expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"4 bands.*found 6.*set_bands"):
        model(pixels)


def test_new_bands_start_from_the_mean(pixels, caplog):
    model = tiny_model()
    expected = output(model, pixels)
    before = kernels(model).detach().clone()
    with caplog.at_level("WARNING", logger="prithvi_hf"):
        assert model.set_bands(["VV", *HLS, "RED_EDGE_1"]) == ["VV", "RED_EDGE_1"]
    assert "VV, RED_EDGE_1 are new to the model" in caplog.text
    assert torch.equal(kernels(model)[:, 1:7], before)
    for new in (0, 7):
        torch.testing.assert_close(kernels(model)[:, new], before.mean(dim=1))
    zeros = torch.zeros_like(pixels[:, :1])
    torch.testing.assert_close(output(model, torch.cat([zeros, pixels, zeros], dim=1)), expected, rtol=0, atol=1e-12)


def test_a_bare_code_that_could_be_two_bands_is_new():
    """B11 is a short-wave infrared on Sentinel-2 and a thermal one on Landsat."""
    assert tiny_model().set_bands(["RED", "B11"]) == ["B11"]
    assert tiny_model().set_bands(["B8A", "B11"]) == []


def test_there_and_back_is_no_change():
    model = tiny_model()
    before = kernels(model).detach().clone()
    model.set_bands([*reversed(SENTINEL_2), "VV"])
    model.set_bands(HLS)
    assert torch.equal(kernels(model), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_training_stay(dtype):
    model = tiny_model().to(dtype)
    model.freeze_backbone()
    expected = kernels(model).to(torch.float64).mean(dim=1)
    model.set_bands(["RED", "VV"])
    assert kernels(model).dtype == dtype
    assert not kernels(model).requires_grad
    torch.testing.assert_close(kernels(model)[:, 1], expected.to(dtype))
    trained = tiny_model()
    trained.set_bands(["RED"])
    assert kernels(trained).requires_grad
    assert isinstance(kernels(trained), torch.nn.Parameter)


def test_device_stays():
    with torch.device("meta"):
        model = tiny_model()
    model.set_bands(["RED", "VV"])
    assert kernels(model).device.type == "meta"
    assert kernels(model).shape == (32, 2, 1, 16, 16)


@pytest.mark.parametrize("model_class", [PrithviModel, PrithviForSemanticSegmentation])
def test_a_saved_model_agrees_with_its_configuration(tmp_path, model_class, pixels):
    model = tiny_model(model_class)
    model.set_bands(["SWIR_1", "VV", "B04"])
    expected = output(model, pixels[:, :3])
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert (loaded.config.bands, loaded.config.num_channels) == (["SWIR_1", "VV", "B04"], 3)
    # Not to the bit: some CPUs' products depend on where a weight is in memory.
    assert torch.allclose(output(loaded, pixels[:, :3]), expected, rtol=1e-12, atol=1e-12)
    assert loaded.set_bands(["RED", "SWIR_1"]) == []


def test_the_changed_model_trains():
    model = tiny_model(num_frames=1).train()
    model.set_bands(["RED", "VV"])
    model(torch.randn(2, 2, 32, 32), labels=torch.randint(0, 2, (2, 32, 32))).loss.backward()
    assert kernels(model).grad.abs().amax(dim=(0, 2, 3, 4)).min() > 0


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["RED", "RED"], "distinct bands, found RED, RED"),
        (["RED", "NIR_NARROW", "B8A"], "knows as RED, NIR_NARROW, NIR_NARROW"),
        (["RED", "NIR", "NIR_NARROW"], "distinct"),
        (["VV", "vv"], r"distinct bands, found VV, vv"),
        ([], "at least one band name, found"),
        ("RED", "list of at least one band name, found 'RED'"),
    ],
)
def test_what_names_no_bands_is_refused(bands, message):
    model = tiny_model()
    before = kernels(model)
    with pytest.raises(ValueError, match=message):
        model.set_bands(bands)
    assert kernels(model) is before
    assert model.config.bands == HLS


def test_a_model_without_band_names_is_refused():
    model = tiny_model(num_channels=4)
    with pytest.raises(ValueError, match=r"name the model's 4 channels, found None\. Set model\.config\.bands"):
        model.set_bands(["RED"])
    model.config.bands = ["RED", "GREEN", "BLUE", "NIR"]
    assert model.set_bands(["NIR_NARROW", "RED"]) == []
