"""The configuration: names of the original, round trips, what it refuses."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from prithvi_hf import PrithviConfig


def test_original_names_are_accepted():
    config = PrithviConfig(embed_dim=64, depth=3, num_heads=2, in_chans=4, img_size=96)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size")
    assert [getattr(config, name) for name in names] == [64, 3, 2, 4, 96]
    assert config.bands is None, "four channels are not the six HLS bands"


def test_round_trip(tmp_path):
    config = PrithviConfig(
        patch_size=(1, 14, 14),
        id2label={0: "land", 1: "water", 2: "ice"},
        class_colors=["#000000", "#1f6fb4", "#ffffff"],
        class_weights=[1, 2, 0.5],
        num_frames=4,
        neck="geospatial",
        first_conv_channels=48,
        num_convs_per_upscale=2,
        loss="focal",
        focal_gamma=1,
    )
    config.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is PrithviConfig
    assert PrithviConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "prithvi"


def test_tuples_are_saved_as_they_are_read_back(tmp_path):
    config = PrithviConfig(image_size=(64, 96), bands=("RED", "NIR_NARROW"), num_channels=2, class_weights=(1, 2.0))
    config.save_pretrained(tmp_path)
    assert PrithviConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_default_describes_the_published_backbone():
    config = PrithviConfig()
    assert config.grid_size == (3, 14, 14)
    assert config.bands == ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    assert config.neck_output_size == 3 * 768


def test_channels_of_the_geospatial_neck():
    config = PrithviConfig(neck="geospatial")
    assert config.geospatial_neck_channels == [1152, 576, 288, 144]
    assert config.neck_output_size == 144
    assert PrithviConfig(first_conv_channels=7).neck_output_size == 3 * 768, "the other neck does without it"


def test_a_single_number_is_a_square_patch():
    assert PrithviConfig(patch_size=8).tubelet_size == (1, 8, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_size": [16, 16]}, "frames, rows, columns"),
        ({"image_size": 8}, "at least one patch"),
        ({"num_frames": 3, "patch_size": [2, 16, 16]}, "multiple of patch_size"),
        ({"bands": ["RED", "GREEN"]}, "6 distinct names"),
        ({"class_weights": [1.0]}, "one entry per class"),
        ({"class_weights": [0.0, 0.0]}, "zero"),
        ({"class_colors": ["red", "#00ff00"]}, "#rrggbb"),
        ({"head_num_convs": 0}, "head_num_convs must be an integer from 1 to 256, got 0"),
        ({"neck": "fpn"}, "neck"),
        ({"neck_hidden_size": 0}, "neck_hidden_size must be an integer from 1"),
        ({"first_conv_channels": 0}, "first_conv_channels must be an integer from 1"),
        ({"channel_reduction_factor": 0}, "channel_reduction_factor must be an integer from 1"),
        ({"num_convs_per_upscale": 0}, "num_convs_per_upscale must be an integer from 1"),
        ({"neck": "geospatial", "first_conv_channels": 7}, r"leave at least one channel, got \[7, 3, 1, 0\]"),
        ({"loss": "jaccard"}, "loss"),
        ({"focal_gamma": -0.5}, "focal_gamma must be a finite number of at least 0, got -0.5"),
        ({"focal_gamma": float("nan")}, "focal_gamma"),
        ({"decode_head": "unet++"}, "decode_head"),
        ({"hidden_size": "768"}, "hidden_size"),
    ],
)
def test_what_describes_no_model_is_refused(values, message):
    with pytest.raises(StrictDataclassError, match=message):
        PrithviConfig(**values)
