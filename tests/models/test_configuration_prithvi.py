"""The configuration: names of the original, round trips, what it refuses."""

import json
import resource
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS, check_model_source
from tests.hub_server import USER


def test_original_names_are_accepted():
    config = PrithviConfig(embed_dim=64, depth=3, num_heads=2, in_chans=4, img_size=96)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size")
    assert [getattr(config, name) for name in names] == [64, 3, 2, 4, 96]
    assert config.bands is None, "four channels are not the six HLS bands"


@pytest.mark.parametrize(
    ("bands", "found"),
    [
        (["B02", "B03", "B04", "B05", "B06", "B07"], PRITHVI_BANDS),
        (["B07", "B02"], ["SWIR_2", "BLUE"]),
        (["B02", "B8A"], ["B02", "B8A"]),
        (["HLSBands.RED", "VV"], ["RED", "VV"]),
    ],
)
def test_original_codes_of_bands_are_those_of_hls_l30(bands, found):
    values = {"embed_dim": 32, "depth": 1, "num_heads": 2, "bands": bands, "in_chans": len(bands)}
    values |= {"img_size": [224, 224], "patch_size": 14, "tubelet_size": 2, "num_frames": 4}
    config = PrithviConfig.from_original(values, mask_ratio=0.5)
    assert (config.bands, config.num_channels, config.mask_ratio) == (found, len(bands), 0.5)
    assert (config.image_size, config.tubelet_size) == (224, (2, 14, 14))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "hot"])
def test_a_temperature_is_a_positive_number(temperature):
    with pytest.raises(StrictDataclassError, match="temperature"):
        PrithviConfig(temperature=temperature)


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
        temperature=1.7,
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


HOSTILE = {
    "hidden_size: 1e9": ({"hidden_size": 10**9}, "hidden_size must be an integer from 1 to 131,072"),
    "many layers": ({"num_hidden_layers": 20_000}, "num_hidden_layers must be an integer from 1 to 4,096"),
    "wide layers": ({"hidden_size": 2**14, "num_hidden_layers": 64}, "at most 8,589,934,592 parameters"),
    "a wide neck": ({"neck_hidden_size": 2**17}, "parameters"),
    "many frames for the neck": ({"num_frames": 1024}, "parameters"),
    "wide heads": ({"head_hidden_size": 2**16}, "parameters"),
    "large images": ({"image_size": 2**15}, "tokens"),
    "large patches": ({"image_size": 2**17, "patch_size": 2**17, "num_channels": 1}, "131,072 pixels"),
    "many classes": ({"num_labels": 10**9}, "num_labels must be an integer from 1 to 65,536"),
    "no class": ({"id2label": {}}, "num_labels must be an integer from 1"),
    "numbers of classes with gaps": ({"id2label": {"0": "a", "7": "b"}}, "id2label must name the classes 0, 1, 2"),
    "names of no number": ({"id2label": {"land": "0"}}, "id2label must name classes by their numbers"),
    "a surrogate in a name": ({"id2label": {"0": "\ud800", "1": "a"}}, "without control characters, got '.ud800'"),
    "NUL in a name": ({"id2label": {"0": "a", "1": "b\0"}}, "without control characters"),
    "a function as type": ({"dtype": "load"}, "dtype must be a type of torch such as float32, got 'load'"),
    "a negative number of heads": ({"num_attention_heads": -12}, "num_attention_heads must be an integer from 1"),
    "a size as text": ({"num_channels": "6"}, "num_channels"),
    "a size with a fraction": ({"hidden_size": 768.5}, "hidden_size"),
    "no number": ({"mlp_ratio": float("nan")}, "mlp_ratio must be a number from 0 to 1024, got nan"),
    "a large epsilon": ({"layer_norm_eps": 1e30}, "layer_norm_eps must be a number from 0 to 1"),
    "a probability above 1": ({"classifier_dropout": 1.5}, "classifier_dropout must be a number from 0 to 1"),
    "weights without end": ({"class_weights": [float("inf"), 1.0]}, "class_weights must be finite"),
    "weights that are no numbers": ({"class_weights": [1.0, float("nan")]}, "class_weights must be finite"),
    "an unknown activation": ({"hidden_act": "os.system"}, "hidden_act must be an activation"),
}


@pytest.fixture(scope="module")
def little_memory():
    """At most 1 GiB more than what is in use: what builds more than that fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("what", HOSTILE)
def test_sizes_of_a_faulty_folder_are_refused_before_anything_is_built(tmp_path, little_memory, what):
    values, message = HOSTILE[what]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "prithvi", **values}))
    for load in (PrithviConfig, PrithviForSemanticSegmentation):
        with pytest.raises((ValueError, StrictDataclassError), match=message):
            load.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"num_frames": 1, "num_frames": 3}', "each key once, found 'num_frames' twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ('{"nodata_value": ' + "[" * 900 + "]" * 900 + "}", "nested too deep"),
        ("[1, 2]", "JSON object, found list"),
    ],
)
def test_a_file_of_options_that_is_ambiguous_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    load = PrithviConfig if name == "config.json" else PrithviImageProcessor
    with pytest.raises(ValueError, match=message):
        load.from_pretrained(tmp_path)


def test_sizes_of_published_and_larger_models_are_taken():
    for width, layers, heads in ((1024, 24, 16), (1280, 32, 16), (1664, 48, 16)):
        config = PrithviConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_frames=4)
        assert config.neck_output_size == 4 * width
    PrithviConfig(image_size=1024, num_labels=255, num_channels=224, bands=None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/none",
        "~/none",
        "a/b/c",
        "one",
        "a\\b/c",
        "a b/c",
        "run/model.",
        "run/../out",
        "\0/a",
        "run/" + "a" * 100,
    ],
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_without_asking(monkeypatch, name):
    monkeypatch.setattr("prithvi_hf.models.prithvi.configuration_prithvi.get_session", None)
    with pytest.raises(ValueError, match="no model"):
        check_model_source(name)


def test_a_name_of_the_form_of_a_hub_id_is_asked_for_once(hub, monkeypatch, tmp_path):
    """With `HF_ENDPOINT` of a server here, and of none."""
    hub.redirect_this_process(monkeypatch)
    PrithviConfig().push_to_hub(f"{USER}/model")
    check_model_source(f"{USER}/model")
    with pytest.raises(ValueError, match=r"no model folder runs/out in .*Hub then, found none"):
        check_model_source("runs/out")
    (tmp_path / "config.json").write_text("{}")
    check_model_source(str(tmp_path))


def test_without_a_connection_a_mistyped_path_fails_at_once(monkeypatch, tmp_path):
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # where nobody listens
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.chdir(tmp_path)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"no model folder runs/out in .*found no connection to it"):
        check_model_source("runs/out")
    assert time.monotonic() - begin < 5
