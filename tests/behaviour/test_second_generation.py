"""Prithvi-EO-2.0: encoders, masked autoencoder and terratorch's segmentation models equal the original code."""

import pytest
import torch
from safetensors.torch import save_file

from prithvi_hf import (
    PrithviConfig,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import PUBLISHED_ENCODERS, config_from_terratorch, infer_config, infer_grid
from prithvi_hf.models.prithvi.embeddings_prithvi import sincos_position_table
from prithvi_hf.training.recipe import Recipe
from tests.golden import assert_matches, read_golden


AUTOENCODERS = ["v2_mae", "v2_mae_TL"]
SEGMENTORS = ["v2_unet", "v2_unet_T2_TL", "v2_upernet", "v2_fcn", "v2_fcn_plain"]
HEADS = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}


@pytest.fixture(autouse=True)
def _highest_precision():
    torch.set_float32_matmul_precision("highest")


def coordinates(golden) -> dict[str, torch.Tensor]:
    return {name: golden[f"in_.{name}"] for name in golden.group("in_") if name.endswith("_coords")}


def convert_gradients(golden, model) -> dict[str, torch.Tensor]:
    """Gradients by the names here; that of a key's bias is zero but for rounding."""
    from prithvi_hf.conversion.tensor_names import convert_names

    # Something of each part, so that the layout shows.
    others = {name: value for name, value in golden.group("sd").items() if name not in golden.group("grad")}
    converted, _ = convert_names(
        {**others, **golden.group("grad")}, with_decoder=isinstance(model, PrithviForPreTraining)
    )
    gradients = {new: value for name in golden.group("grad") for new, value in converted[name].items()}
    return {name: value for name, value in gradients.items() if not name.endswith("k_proj.bias")}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_masked_autoencoder_equals_the_original(golden_dir, name):
    golden = read_golden(golden_dir, name)
    config = infer_config(golden.group("sd"), **HEADS)
    model = PrithviForPreTraining(config).eval()
    tensors = convert_state_dict(golden.group("sd"), config, for_model=PrithviForPreTraining)
    model.load_state_dict(tensors, strict=True)
    pixels, noise, coords = golden["in_.x"], golden["in_.noise"], coordinates(golden)
    outputs = model(pixels, noise=noise, **coords)
    assert_matches(outputs.loss, golden["out.loss"])
    assert_matches(model.unpatchify(outputs.logits, pixels.shape[2:]), golden["out.pred"])
    assert torch.equal(outputs.mask, golden["out.token_mask"])
    assert torch.equal(outputs.ids_restore, golden["out.ids_restore"])
    assert torch.equal(model.unpatchify(outputs.mask.unsqueeze(-1), pixels.shape[2:])[:, 0], golden["out.mask"])
    outputs.loss.backward()
    parameters = dict(model.named_parameters())
    for parameter, expected in convert_gradients(golden, model).items():
        assert_matches(parameters[parameter].grad, expected)
    model.config.norm_pix_loss = True
    assert_matches(model(pixels, noise=noise, **coords).loss, golden["out.loss_norm_pix"])


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_encoder_equals_the_original_with_and_without_coordinates(golden_dir, name):
    golden = read_golden(golden_dir, name)
    config = infer_config(golden.group("sd"), **HEADS)
    model = PrithviModel(config).eval()
    model.load_state_dict(convert_state_dict(golden.group("sd"), config), strict=True)
    outputs = model(golden["in_.x"], output_hidden_states=True, **coordinates(golden))
    assert_matches(outputs.hidden_states[1], golden["out.features.0"])
    assert_matches(outputs.last_hidden_state, golden["out.features.1"])
    if "out.features_nocoords.1" in golden.tensors:
        assert_matches(model(golden["in_.x"]).last_hidden_state, golden["out.features_nocoords.1"])


def test_the_encoder_equals_the_original_at_other_sizes(golden_dir):
    golden = read_golden(golden_dir, "v2_interp")
    config = infer_config(golden.group("sd"), num_attention_heads=4)
    model = PrithviModel(config).eval()
    model.load_state_dict(convert_state_dict(golden.group("sd"), config), strict=True)
    for name, pixels in golden.group("in_").items():
        assert_matches(model(pixels).last_hidden_state, golden[f"out.{name}.features_last"])


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "lightning"])
@pytest.mark.parametrize("name", SEGMENTORS)
def test_segmentation_models_equal_the_original(golden_dir, name, wrapped):
    golden = read_golden(golden_dir, name)
    state_dict = {f"model.{key}" if wrapped else key: value for key, value in golden.group("sd").items()}
    config = config_from_terratorch(golden.config["factory"])
    model = PrithviForSemanticSegmentation(config).eval()
    model.load_state_dict(convert_state_dict(state_dict, config), strict=True)
    outputs = model(golden["in_.x"], labels=golden["in_.label"], **coordinates(golden))
    assert_matches(outputs.logits, golden["out.logits"])
    assert_matches(outputs.loss, golden["out.eval.ce"])
    for key, pixels in golden.group("in_").items():
        if key.startswith("x_"):  # padded on both sides to whole pairs of patches
            assert_matches(model(pixels).logits, golden[f"out.logits_{key[2:]}"])
    outputs.loss.backward()
    parameters = dict(model.named_parameters())
    for parameter, expected in convert_gradients(golden, model).items():
        assert_matches(parameters[parameter].grad, expected)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_shapes_alone_give_the_configuration(golden_dir, name):
    golden = read_golden(golden_dir, name)
    stated, inferred = config_from_terratorch(golden.config["factory"]), infer_config(golden.group("sd"), **HEADS)
    for field in (
        "neck",
        "decode_head",
        "num_labels",
        "num_frames",
        "coords_encoding",
        "classifier_channels",
        "padding",
    ):
        assert getattr(stated, field) == getattr(inferred, field), field
    assert stated.neck_channels == inferred.neck_channels
    assert stated.feature_layers == inferred.feature_layers


def test_a_file_converts_keeps_its_decoder_when_asked_and_trains_with_another_head(golden_dir, tmp_path, capsys):
    golden = read_golden(golden_dir, "v2_mae_TL")
    file = tmp_path / "Prithvi_EO_V2_300M_TL.safetensors"
    save_file(golden.group("sd"), file)
    report = convert_checkpoint(file, tmp_path / "backbone", **HEADS)
    assert report.model_class == "PrithviModel"
    decoder = [name for name in golden.group("sd") if name.startswith("decoder.")]
    assert {name for name, reason in report.dropped.items() if "decoder" in reason} == set(decoder)
    assert report.assumed["image_mean"] == [1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0]
    whole = convert_checkpoint(file, tmp_path / "whole", for_model="PrithviForPreTraining", **HEADS)
    assert set(whole.dropped) == {"encoder.pos_embed", "decoder.decoder_pos_embed"}
    model = PrithviForPreTraining.from_pretrained(tmp_path / "whole").eval()
    coords = coordinates(golden)
    assert_matches(model(golden["in_.x"], noise=golden["in_.noise"], **coords).loss, golden["out.loss"])

    values = {"model": str(tmp_path / "whole"), "decode_head": "unet", "unet_channels": [16, 8, 8, 4]}
    tuned = Recipe.from_values(values).build_model()
    assert (tuned.config.neck, tuned.config.use_auxiliary_head) == ("pyramid", False)
    encoder = PrithviModel.from_pretrained(tmp_path / "backbone").eval()
    expected = encoder(golden["in_.x"], **coords).last_hidden_state
    assert_matches(tuned.prithvi.eval()(golden["in_.x"], **coords).last_hidden_state, expected)
    without = Recipe.from_values({**values, "coords_encoding": []}).build_model()
    assert (without.config.coords_encoding, without.prithvi.embeddings.coordinates) == ([], None)
    assert PrithviImageProcessor.from_pretrained(tmp_path / "backbone").first_day_of_year == 1


def test_a_model_that_is_not_in_the_file_is_refused(golden_dir):
    golden = read_golden(golden_dir, "v2_unet")
    config = config_from_terratorch(golden.config["factory"])
    with pytest.raises(
        ValueError, match="for_model to be one that the file has the weights of, PrithviForSemanticSeg"
    ):
        convert_state_dict(golden.group("sd"), config, for_model="PrithviForPreTraining")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("prithvi_eo_v2_tiny_tl", 5.7e6),
        ("prithvi_eo_v2_100_tl", 86e6),
        ("prithvi_eo_v2_300", 304e6),
        ("prithvi_eo_v2_600_tl", 631e6),
    ],
)
def test_published_sizes(name, parameters):
    config = PrithviConfig(**PUBLISHED_ENCODERS[name])
    with torch.device("meta"):
        model = PrithviModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(parameters, rel=0.02)
    assert (
        model.embeddings.position_embeddings.shape[1] == 1 + config.num_frames * (224 // config.tubelet_size[1]) ** 2
    )


def test_a_published_config_json_is_read():
    values = {
        "img_size": 224,
        "num_frames": 4,
        "patch_size": [1, 14, 14],
        "in_chans": 6,
        "embed_dim": 1280,
        "depth": 32,
    }
    values |= {"num_heads": 16, "decoder_embed_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16, "mlp_ratio": 4}
    values |= {"coords_encoding": ["time", "location"], "coords_scale_learn": True, "mask_ratio": 0.75, "mean": [1.0]}
    config = PrithviConfig.from_original({"architecture": "prithvi_eo_v2_600_tl", "pretrained_cfg": values})
    assert config.to_dict() == PrithviConfig(**PUBLISHED_ENCODERS["prithvi_eo_v2_600_tl"]).to_dict()
    with pytest.raises(ValueError, match="without embed_dim, depth, num_heads"):
        PrithviConfig.from_original({"architectures": ["BertModel"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "swin"}, "backbone that is one of prithvi_eo_tiny, .*found 'swin'"),
        ({"decoder": "ASPPDecoder"}, "decoder among UNetDecoder"),
        ({"necks": [{"name": "AddBottleneckLayer"}]}, "found AddBottleneckLayer"),
    ],
)
def test_other_models_of_terratorch_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_terratorch({"backbone": "prithvi_eo_v2_300", "decoder": "FCNDecoder", "num_classes": 2, **change})


@pytest.mark.parametrize(("necks", "index", "layers"), [(None, 2, [2]), ([1, 5, 7], -2, [5])])
def test_the_fcn_takes_the_layer_of_its_index(necks, index, layers):
    necks = [{"name": "SelectIndices", "indices": necks}] if necks else []
    arguments = {"backbone": "prithvi_eo_v2_100", "decoder": "FCNDecoder", "num_classes": 2, "necks": necks}
    assert config_from_terratorch({**arguments, "decoder_in_index": index}).feature_layers == layers


@pytest.mark.parametrize(
    "grid", [(1, 2, 8), (1, 8, 2), (3, 4, 4), (12, 2, 2), (4, 4, 6), (1, 1, 5), (1, 5, 1), (7, 1, 1)]
)
def test_positions_show_their_grid(grid):
    assert infer_grid(sincos_position_table(64, grid))[0] == grid
    assert infer_grid(sincos_position_table(64, grid), grid[0])[0] == grid


@pytest.mark.parametrize("shape", [(0, 5, 16), (2, 5, 16), (1, 5, 0), (1, 5, 8), (1, 1, 16), (1, 0, 16), (5, 16)])
def test_what_is_not_a_table_of_positions_is_refused(shape):
    with pytest.raises(ValueError, match="Expected pos_embed of a token grid"):
        infer_grid(torch.zeros(shape))


def test_arguments_of_a_part_may_stand_beside_it():
    config = config_from_terratorch(
        {
            **{"backbone": "terratorch_prithvi_eo_v2_300_tl", "backbone_num_frames": 1, "backbone_pretrained": True},
            **{
                "decoder": "UNetDecoder",
                "decoder_channels": [512, 256, 128, 64],
                "num_classes": 2,
                "head_dropout": 0.1,
            },
            "necks": [
                {"name": "SelectIndices", "indices": [5, 11, 17, 23]},
                {"name": "ReshapeTokensToImage"},
                {"name": "LearnedInterpolateToPyramidal"},
            ],
        }
    )
    assert (config.num_frames, config.classifier_dropout, config.feature_layers) == (1, 0.1, [5, 11, 17, 23])
    assert config.neck_channels == [256, 512, 1024, 1024]
