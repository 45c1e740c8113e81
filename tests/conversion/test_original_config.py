# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Published repositories of both generations, and the configurations beside their weights and in them."""

import enum
import io
import json
import sys
import types

import pytest
import torch
import yaml

from prithvi_hf import (
    PrithviConfig,
    PrithviForPixelRegression,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import PUBLISHED_ENCODERS, infer_config
from prithvi_hf.conversion.original_config import DATA_MODULES, parse_original_config, read_original_config
from prithvi_hf.conversion.read_checkpoint import PUBLISHED_FILES
from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from tests.checkpoint_factory import (
    RECIPES,
    REDUCED,
    STATISTICS,
    assert_refused,
    convert,
    hub_config,
    lightning_file,
    masked_autoencoder,
    mmcv_file,
    second_generation,
    terratorch_model,
)
from tests.golden import read_golden


OWNER = "ibm-nasa-geospatial"
NECKS = [
    {"name": "SelectIndices", "indices": [5, 11, 17, 23]},
    {"name": "ReshapeTokensToImage"},
    {"name": "LearnedInterpolateToPyramidal"},
]
FLOODS = {
    "backbone": "prithvi_eo_v2_300_tl",
    "backbone_pretrained": True,
    "backbone_bands": PRITHVI_BANDS,
    "necks": NECKS,
    "decoder": "UperNetDecoder",
    "decoder_channels": 256,
    "num_classes": 2,
    "head_dropout": 0.1,
    "rescale": True,
}
# What Lightning stored with the published weights still names a removed flag and another neck.
FLOOD_PARAMETERS = {
    "_class_path": "terratorch.tasks.SemanticSegmentationTask",
    "model_args": {**FLOODS, "decoder": "UPerNetDecoder", "decoder_scale_modules": True, "necks": NECKS[:2]},
    **{"model_factory": "EncoderDecoderFactory", "loss": "ce", "ignore_index": -1, "lr": 0.001},
    **{"class_names": None, "class_weights": None, "aux_heads": None, "optimizer": None},
}
BURN_SCARS = {
    "backbone": "prithvi_eo_v2_300",
    "backbone_bands": PRITHVI_BANDS,
    "necks": NECKS,
    "decoder": "UNetDecoder",
    "decoder_channels": [512, 256, 128, 64],
    "num_classes": 2,
}
MEANS = [0.0333, 0.0570, 0.0589, 0.2323, 0.1973, 0.1194]
STDS = [0.0227, 0.0268, 0.0400, 0.0779, 0.0871, 0.0724]


def lightning_config(model_args, task="SemanticSegmentationTask", data=None, **arguments) -> dict:
    """A `config.yaml` of terratorch, as jsonargparse writes it."""
    init_args = {"model_factory": "EncoderDecoderFactory", "model_args": model_args, "loss": "ce", "ignore_index": -1}
    return {
        "seed_everything": 42,
        "trainer": {"precision": "16-mixed", "callbacks": [{"class_path": "EarlyStopping", "init_args": None}]},
        "model": {"class_path": f"terratorch.tasks.{task}", "init_args": {**init_args, "lr": 5e-5, **arguments}},
        "data": data,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-5}},
    }


FLOOD_YAML = lightning_config(
    FLOODS,
    data={
        "class_path": "terratorch.datamodules.Sen1Floods11NonGeoDataModule",
        "init_args": {"data_root": "/data", "bands": PRITHVI_BANDS, "constant_scale": 0.0001, "no_data_replace": 0.0}
        | {"no_label_replace": -1, "use_metadata": False, "batch_size": 16},
    },
)
BURN_YAML = lightning_config(
    BURN_SCARS,
    class_names=["Not burned", "Burn scar"],
    data={
        "class_path": "GenericNonGeoSegmentationDataModule",
        "init_args": {"dataset_bands": PRITHVI_BANDS, "output_bands": PRITHVI_BANDS, "means": MEANS, "stds": STDS}
        | {"no_data_replace": 0, "no_label_replace": -1, "num_classes": 2},
    },
)


def saved(state_dict, save=torch.save, *args, **kwargs) -> bytes:
    buffer = io.BytesIO()
    if save is torch.save:
        torch.save(state_dict, buffer)
    else:
        save(buffer, state_dict, *args, **kwargs)
    return buffer.getvalue()


@pytest.fixture
def publish(hub, monkeypatch):
    """Put files into a repository like the published ones, among others that are not weights or configurations."""
    hub.redirect_this_process(monkeypatch)

    def publish(repository, files):
        others = {"README.md": b"# Prithvi", "inference.py": b"import torch", "examples/chip.yaml": b"a: [b"}
        hub.create_repository("models", repository).add("main", "weights", {**others, **files})
        return f"hf://{repository}"

    return publish


# ---------------------------------------------------------------------- published backbones

SIZES = {
    "tiny-TL": (96, 12, 3, 16, True),
    "100M-TL": (96, 12, 12, 16, True),
    "300M": (64, 24, 16, 16, False),
    "300M-TL": (64, 24, 16, 16, True),
    "600M": (80, 32, 5, 14, False),
    "600M-TL": (80, 32, 5, 14, True),
}


@pytest.mark.parametrize("size", SIZES)
def test_a_published_backbone_needs_no_argument(publish, tmp_path, capsys, size):
    hidden, layers, heads, patch, coords = SIZES[size]
    tensors = second_generation(hidden, layers, patch, coords, decoder=(16, 2))
    config = hub_config(hidden, layers, heads, patch, coords, decoder=(16, 2))
    repository = f"{OWNER}/Prithvi-EO-2.0-{size}"
    file, recipe = PUBLISHED_FILES[repository]
    files = {file: saved(tensors), "config.json": json.dumps(config).encode()}
    source = publish(repository, files | {f"old/{file}": b"", "earlier.pt": b""})
    assert recipe is None
    assert convert(source, tmp_path / "out") == 0
    report = capsys.readouterr().out
    model = PrithviModel.from_pretrained(tmp_path / "out")
    found = model.config
    assert (found.hidden_size, found.num_hidden_layers, found.num_attention_heads) == (hidden, layers, heads)
    assert (found.num_frames, found.image_size, found.tubelet_size) == (4, 224, (1, patch, patch))
    assert found.coords_encoding == (["time", "location"] if coords else [])
    assert found.bands == PRITHVI_BANDS
    assert torch.equal(model.layers[-1].mlp.fc2.weight, tensors[f"encoder.blocks.{layers - 1}.mlp.fc2.weight"])
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.bands, processor.num_frames) == (PRITHVI_BANDS, 4)
    assert (processor.image_mean, processor.image_std) == (STATISTICS["mean"], STATISTICS["std"])
    assert f"from config.json: num_attention_heads = {heads}" in report
    assert "assumed image_mean" not in report


def test_a_file_that_was_downloaded_converts_without_the_hub_as_with_it(publish, tmp_path, monkeypatch, capsys):
    size, (hidden, layers, heads, *_) = "tiny-TL", SIZES["tiny-TL"]
    tensors = second_generation(hidden, layers, decoder=(16, 2))
    files = {"Prithvi_EO_V2_tiny_TL.pt": saved(tensors)}
    config = json.dumps(hub_config(hidden, layers, heads, decoder=(16, 2))).encode()
    source = publish(f"{OWNER}/Prithvi-EO-2.0-{size}", files | {"config.json": config})
    assert convert(source, tmp_path / "first") == 0

    def lose(*_, **__):
        raise ConnectionError("offline mode")

    monkeypatch.setattr("huggingface_hub.list_repo_files", lose)
    assert convert(f"{source}/Prithvi_EO_V2_tiny_TL.pt", tmp_path / "second") == 0
    first, second = (PrithviConfig.from_pretrained(tmp_path / name).to_dict() for name in ("first", "second"))
    assert first == second
    assert_refused(capsys, tmp_path, "offline mode", source)


def test_the_pretraining_decoder_is_that_of_the_config(publish, tmp_path):
    tensors, config = second_generation(32, 2, decoder=(32, 2)), hub_config(32, 2, 2, decoder=(32, 2))
    config["pretrained_cfg"] |= {"norm_pix_loss": True, "mask_ratio": 0.6, "decoder_num_heads": 8}
    files = {"Prithvi_EO_V2_300M_TL.pt": saved(tensors), "config.json": json.dumps(config).encode()}
    source = publish(f"{OWNER}/Prithvi-EO-2.0-300M-TL", files)
    assert convert(source, tmp_path / "out", "--for_model", "PrithviForPreTraining") == 0
    found = PrithviForPreTraining.from_pretrained(tmp_path / "out").config
    assert (found.norm_pix_loss, found.mask_ratio, found.decoder_num_attention_heads) == (True, 0.6, 8)


def test_the_first_generation_is_read_from_its_yaml(publish, tmp_path):
    """Its arguments of the model and of the training stand in two parts."""
    values = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "num_frames": 3, "in_chans": 6}
    values |= {
        "patch_size": 16,
        "tubelet_size": 1,
        "decoder_embed_dim": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    }
    mean, std = (
        [775.229, 1080.993, 1228.586, 2497.202, 2204.214, 1610.832],
        [1281.5, 1270.0, 1399.5, 1368.3, 1291.7, 1154.5],
    )
    bands = ["B02", "B03", "B04", "B05", "B06", "B07"]
    content = {
        "model_args": values,
        "train_params": {"bands": bands, "data_mean": mean, "data_std": std, "mask_ratio": 0.75},
    }
    files = {"Prithvi_EO_V1_100M.pt": saved(masked_autoencoder()), "Prithvi_100M.pt": b"older"}
    source = publish(f"{OWNER}/Prithvi-EO-1.0-100M", files | {"config.yaml": yaml.safe_dump(content).encode()})
    assert convert(source, tmp_path / "out") == 0
    config, processor = (kind.from_pretrained(tmp_path / "out") for kind in (PrithviConfig, PrithviImageProcessor))
    assert (config.num_attention_heads, config.tubelet_size, config.num_frames) == (4, (1, 16, 16), 3)
    assert (processor.image_mean, processor.image_std) == (mean, std)


@pytest.mark.parametrize("which", RECIPES)
@pytest.mark.parametrize("generation", ["Prithvi-EO-1.0-100M", "Prithvi-100M"])
def test_a_published_model_of_mmsegmentation_has_its_recipe(publish, golden_dir, tmp_path, which, generation):
    name = {"flood": "sen1floods11", "burn": "burn-scar", "crop": "multi-temporal-crop-classification"}[which]
    repository = f"{OWNER}/{generation}-{name}"
    file, recipe = PUBLISHED_FILES[repository]
    assert recipe == RECIPES[which]
    tensors = read_golden(golden_dir, f"v1_segmentor_{which}").group("sd")
    # Another configuration beside it is not of mmsegmentation's kind.
    files = {
        file: saved(tensors, mmcv_file),
        "other.pth": b"",
        "config.json": json.dumps(hub_config(8, 1, 1)).encode(),
    }
    source = publish(repository, files)
    assert convert(source, tmp_path / "out", "--set", *REDUCED[which]) == 0
    assert (tmp_path / "out" / "recipe.yaml").is_file()
    local = mmcv_file(tmp_path / file, tensors)
    assert convert(local, tmp_path / "local", "--set", *REDUCED[which]) == 0
    one, other = (PrithviConfig.from_pretrained(tmp_path / folder).to_dict() for folder in ("out", "local"))
    assert one == other


# ---------------------------------------------------------------------- published fine-tuned models


def test_the_published_flood_model(publish, tmp_path, capsys):
    """Its stored parameters name a removed flag; class names and statistics are those of its data module."""
    tensors = terratorch_model(64, 24, 16, coords=True)
    assert len(tensors) == 381
    files = {"Prithvi-EO-V2-300M-TL-Sen1Floods11.pt": saved(tensors, lightning_file, **FLOOD_PARAMETERS)}
    files["config.yaml"] = yaml.safe_dump(FLOOD_YAML).encode()
    assert convert(publish(f"{OWNER}/Prithvi-EO-2.0-300M-TL-Sen1Floods11", files), tmp_path / "out") == 0
    report = capsys.readouterr().out
    config = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").config
    assert (config.decode_head, config.neck, config.head_hidden_size, config.padding) == (
        *("upernet", "pyramid", 16),
        "both_sides",
    )
    assert (config.feature_layers, config.classifier_dropout) == ([5, 11, 17, 23], 0.1)
    assert (config.num_frames, config.image_size, config.coords_encoding) == (1, 224, ["time", "location"])
    assert (config.id2label, config.num_attention_heads) == ({0: "no water", 1: "water"}, 1)
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_mean == [0.1412956, 0.13795798, 0.12353792, 0.30902815, 0.2044958, 0.11912015]
    assert processor.image_std == [0.07406382, 0.07370365, 0.08692279, 0.11798815, 0.09772074, 0.07659938]
    assert (processor.rescale_factor, processor.nodata_replacement, processor.ignore_values) == (0.0001, 0, [-1])
    assert (processor.band_indices, processor.num_labels) == ([1, 2, 3, 8, 11, 12], 2)
    assert "config.yaml says hidden_size = 1024, the weights show 64: the weights decide" in report
    assert "tuned without dates and places, though it takes them" in report
    assert "assumed out_indices" not in report
    assert "381 tensors converted" not in report.replace("380 tensors converted", ""), "all but the positions"


@pytest.mark.parametrize("kept", [[], ["location"]])
def test_dates_and_places_can_be_left_out(tmp_path, kept):
    tensors = terratorch_model(32, 2, 8, coords=True)
    path = lightning_file(tmp_path / "a.pt", tensors)
    report = convert_checkpoint(path, tmp_path / "out", coords_encoding=kept)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert model.config.coords_encoding == kept
    scales = {name: value for name, value in model.state_dict().items() if name.endswith("_scale")}
    assert len(scales) == len(kept)
    assert report.dropped["model.encoder.temporal_embed_enc.scale"] == "coords_encoding leaves the time out"
    assert convert_state_dict(tensors, model.config).keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["burn_scars_config.yaml", "config.json"])
def test_the_published_burn_scar_model(publish, tmp_path, name):
    """As YAML, or in the `config.json` that vLLM reads, which is that of no encoder."""
    tensors = terratorch_model(64, 24, [512 // 32, 256 // 32, 128 // 32, 64 // 32])
    assert len(tensors) == 355
    content = yaml.safe_dump(BURN_YAML) if name.endswith("yaml") else json.dumps({"pretrained_cfg": BURN_YAML})
    files = {"Prithvi_EO_V2_300M_BurnScars.pt": saved(tensors, lightning_file), name: content.encode()}
    assert convert(publish(f"{OWNER}/Prithvi-EO-2.0-300M-BurnScars", files), tmp_path / "out") == 0
    config = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").config
    assert (config.decode_head, config.unet_channels, config.feature_layers) == (
        "unet",
        [16, 8, 4, 2],
        [5, 11, 17, 23],
    )
    assert (config.label2id, config.coords_encoding) == ({"Not burned": 0, "Burn scar": 1}, [])
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.image_mean, processor.image_std, processor.rescale_factor) == (MEANS, STDS, 1.0)
    assert (processor.band_indices, processor.nodata_replacement, processor.ignore_values) == (None, 0, [-1])


@pytest.mark.parametrize(
    ("tensors", "elements", "values"),
    [
        (terratorch_model(1024, 24, 256, coords=True, device="meta"), 319_177_489, FLOODS),
        (terratorch_model(1024, 24, [512, 256, 128, 64], device="meta"), 324_411_275, BURN_SCARS),
    ],
    ids=["floods", "burn scars"],
)
def test_published_models_at_full_width(tensors, elements, values):
    assert sum(tensor.numel() for tensor in tensors.values()) == elements, "as those who counted the files say"
    stated = parse_original_config({"model_args": values}, "config").values
    config = infer_config(tensors, **{name: stated[name] for name in ("classifier_dropout", "out_indices")})
    assert {name: getattr(config, name) for name in stated} == stated
    converted = convert_state_dict(tensors, config)
    assert len(converted) == len(tensors) - 1 + 2 * 2 * 24  # without positions, with three projections for one


@pytest.mark.parametrize("size", SIZES)
def test_published_backbones_at_full_width(size):
    name = f"prithvi_eo_v2_{size.removesuffix('-TL').removesuffix('M')}{'_tl' if size.endswith('TL') else ''}"
    fields = PrithviConfig(**{**PUBLISHED_ENCODERS[name], "num_frames": 4})
    tensors = second_generation(
        fields.hidden_size, fields.num_hidden_layers, SIZES[size][3], bool(fields.coords_encoding), device="meta"
    )
    tensors |= {name: tensor.to("meta") for name, tensor in tensors.items()}
    config = infer_config(tensors)
    assert config.to_dict() == fields.to_dict()
    assert len(convert_state_dict(tensors, config, PrithviForPreTraining)) > len(tensors)


# ---------------------------------------------------------------------- users' own runs


def write(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


SMALL = {**BURN_SCARS, "necks": [{"name": "SelectIndices", "indices": [0, 1, 1, -1]}, *NECKS[1:]]}
SMALL |= {"backbone_kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 4}, "decoder_channels": [8, 8, 4, 4]}


@pytest.fixture
def run(tmp_path):
    """A small run of a user: a checkpoint, and its configuration elsewhere."""
    path = lightning_file(tmp_path / "best.ckpt", terratorch_model(32, 2, [8, 8, 4, 4]))
    return path, write(tmp_path / "mine.txt.yaml", lightning_config(SMALL)).rename(tmp_path / "mine.conf")


def test_a_configuration_can_be_named(run, tmp_path, capsys):
    checkpoint, config = run
    assert convert(checkpoint, tmp_path / "plain") == 0
    assert "assumed out_indices = [0, 0, 0, 1]" in capsys.readouterr().out
    assert convert(checkpoint, tmp_path / "out", "--original_config", config) == 0
    report = capsys.readouterr().out
    found = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (found.feature_layers, found.num_attention_heads) == ([0, 1, 1, 1], 4)
    assert "from mine.conf: out_indices = [0, 1, 1, 1]" in report
    assert "assumed out_indices" not in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder_channels": [8, 8, 8, 8]}, "unet_channels = [8, 8, 8, 8], the weights show [8, 8, 4, 4]"),
        ({"num_classes": 3}, "num_labels = 3, the weights show 2"),
        ({"backbone_num_frames": 3}, "num_frames = 3, the weights show 1"),
        ({"decoder": "FCNDecoder"}, "decode_head = transpose_fcn, the weights show unet"),
        ({"decoder": "ASPPDecoder"}, "a decoder among UNetDecoder, UperNetDecoder, FCNDecoder, found"),
        ({"backbone": "terramind_v1_base"}, "Expected a backbone that is one of"),
        ({"head_final_act": "torch.nn.ReLU"}, "Expected a model without head_final_act = torch.nn.ReLU"),
        ({"backbone_padding": "constant"}, "Expected a model without backbone_padding = constant: no model"),
        ({"backbone_use_temporal": True}, "without backbone_use_temporal = True"),
        ({"decoder_in_index": 0}, "without decoder_in_index = 0"),
        ({"necks": [{"indices": [1]}]}, "found a part that is not so (KeyError: 'name')"),
        ({"decoder_channels": None}, "found a part that is not so (TypeError"),
    ],
)
def test_a_named_configuration_that_contradicts_is_refused(run, tmp_path, capsys, change, message):
    checkpoint, config = run
    write(config, lightning_config({**SMALL, **change}))
    assert_refused(capsys, tmp_path, message, checkpoint, "--original_config", config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1", "found neither"),
        ("[1, 2]", "'name: value' lines"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: &x [1]\na: *x", "a twice"),
    ],
)
def test_a_named_file_of_something_else_is_refused(run, tmp_path, capsys, content, message):
    checkpoint, config = run
    write(config, content)
    assert_refused(capsys, tmp_path, message, checkpoint, "--original_config", config)
    assert_refused(capsys, tmp_path, "none at absent.yaml", checkpoint, "--original_config", "absent.yaml")


def test_statistics_that_are_not_numbers_are_refused(run, tmp_path, capsys):
    checkpoint, config = run
    data = {"class_path": "Generic", "init_args": {"means": ["low", *MEANS[1:]], "stds": STDS}}
    write(config, lightning_config(SMALL, data=data))
    message = (
        "mine.conf to describe a Prithvi model as its code does, found a part that is not so (TypeError: could not"
    )
    assert_refused(capsys, tmp_path, message, checkpoint, "--original_config", config)


def test_a_configuration_of_other_weights_is_left_out(tmp_path, capsys):
    torch.save(masked_autoencoder(), tmp_path / "Prithvi_100M.pt")
    (tmp_path / "config.json").write_text(json.dumps(hub_config(1024, 24, 16)))
    assert convert(tmp_path / "Prithvi_100M.pt", tmp_path / "out") == 0
    report = capsys.readouterr().out
    assert "config.json beside the weights is of others and was not taken" in report
    assert "hidden_size = 1024, the weights show 32" in report
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").image_mean[0] == 775


def test_a_setting_wins_over_a_contradiction(run, tmp_path):
    checkpoint, config = run
    write(config, lightning_config({**SMALL, "num_classes": 3}, class_names=["a", "b", "c"]))
    settings = ["--set", "num_labels=2", 'id2label={"0": "dry", "1": "wet"}']
    assert convert(checkpoint, tmp_path / "out", "--original_config", config, *settings) == 0
    assert PrithviConfig.from_pretrained(tmp_path / "out").id2label == {0: "dry", 1: "wet"}


def test_of_several_files_the_one_that_fits_is_taken(run, tmp_path, capsys):
    checkpoint, config = run
    config.rename(tmp_path / "right.yaml")
    write(tmp_path / "wrong.yml", lightning_config({**SMALL, "num_classes": 5}))
    write(tmp_path / "other.yaml", "learning_rate: 1")
    write(tmp_path / "broken.yaml", "a: [")
    (tmp_path / "config.json").write_text(json.dumps(hub_config(32, 2, 2)))
    assert convert(checkpoint, tmp_path / "out") == 0
    report = capsys.readouterr().out
    assert "from right.yaml: out_indices = [0, 1, 1, 1]" in report
    assert "the configuration broken.yaml was not read" in report
    write(tmp_path / "second.yaml", lightning_config(SMALL))
    assert convert(checkpoint, tmp_path / "again") == 0, "they say the same"


def test_files_that_fit_and_differ_are_a_question(run, tmp_path, capsys):
    checkpoint, config = run
    config.rename(tmp_path / "right.yaml")
    write(tmp_path / "second.yaml", lightning_config({**SMALL, "head_dropout": 0.5}))
    assert_refused(capsys, tmp_path, "found 2 that differ: right.yaml, second.yaml", checkpoint)
    assert convert(checkpoint, tmp_path / "out", "--original_config", tmp_path / "second.yaml") == 0
    assert PrithviConfig.from_pretrained(tmp_path / "out").classifier_dropout == 0.5


def test_stored_parameters_stand_in_for_a_file(tmp_path, capsys):
    parameters = {"model_args": SMALL, "class_names": ["dry", "wet"], "class_weights": [0.3, 0.7], "loss": "focal"}
    path = lightning_file(tmp_path / "best.ckpt", terratorch_model(32, 2, [8, 8, 4, 4]), **parameters)
    assert convert(path, tmp_path / "out") == 0
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (config.id2label, config.class_weights, config.loss) == ({0: "dry", 1: "wet"}, [0.3, 0.7], "focal")
    assert config.feature_layers == [0, 1, 1, 1]
    report = capsys.readouterr().out
    assert "from the weights' file: loss = focal" in report
    assert "assumed image_mean" in report, "the parameters say nothing of the images"


def test_stored_parameters_of_another_kind_are_left_out_unless_they_change_the_model(tmp_path, capsys):
    tensors = terratorch_model(32, 2, [8, 8, 4, 4])
    path = lightning_file(tmp_path / "a.ckpt", tensors, model_args={**SMALL, "head_final_act": "torch.nn.ReLU"})
    assert_refused(capsys, tmp_path, "no model here computes the same", path)
    path = lightning_file(tmp_path / "b.ckpt", tensors, model_args={**SMALL, "backbone": "my_encoder"})
    assert convert(path, tmp_path / "out") == 0
    assert "the configuration in the file was not read: Expected a backbone" in capsys.readouterr().out


def test_a_recipe_wins_over_the_configuration(run, tmp_path):
    checkpoint, config = run
    content = "class_names: [dry, wet]\nrescale_factor: 0.0001\nclassifier_dropout: 0.3\n"
    recipe = write(tmp_path / "recipe.conf", content)
    write(config, lightning_config({**SMALL, "head_dropout": 0.5}, class_names=["a", "b"], class_weights=[1, 2]))
    assert convert(checkpoint, tmp_path / "out", "--original_config", config, "--recipe", recipe) == 0
    found = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (found.id2label, found.classifier_dropout, found.class_weights) == ({0: "dry", 1: "wet"}, 0.3, [1.0, 2.0])
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.rescale_factor, processor.ignore_values) == (0.0001, [-1])


@pytest.mark.parametrize("prefix", ["encoder._timm_module.", "encoder."])
@pytest.mark.parametrize("pyramid", ["decoder.", "neck.2."])
def test_older_runs_are_the_same_model(tmp_path, prefix, pyramid):
    """The pyramid was in the decoder, the encoder in a wrapper of timm; auxiliary heads and losses have weights."""
    tensors = terratorch_model(32, 2, 8)
    names = {name: name.replace("encoder.", prefix).replace("neck.2.", pyramid) for name in tensors}
    older = {names[name]: tensor for name, tensor in tensors.items()}
    older |= {"aux_heads.fcn.head.head.2.weight": torch.ones(2, 8, 1, 1), "aux_heads.fcn.decoder.x": torch.ones(2)}
    file = lightning_file(tmp_path / "old.ckpt", older)
    content = torch.load(file)
    content["state_dict"]["criterion.weight"] = torch.ones(2)
    torch.save(content, file)
    report = convert_checkpoint(file, tmp_path / "out")
    expected = convert_state_dict(tensors, PrithviConfig.from_pretrained(tmp_path / "out"))
    found = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {name for name in report.dropped if "pos_embed" not in name} == {
        *("model.aux_heads.fcn.head.head.2.weight", "model.aux_heads.fcn.decoder.x", "criterion.weight"),
    }


@pytest.fixture
def terratorch_bands(monkeypatch):
    """The enumeration of bands, under the name by which terratorch's notebooks store it."""
    module = types.ModuleType("terratorch.datasets.utils")
    bands = enum.Enum("HLSBands", {name: name for name in PRITHVI_BANDS}, module=module.__name__)
    module.HLSBands = bands
    for name in ("terratorch", "terratorch.datasets"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return bands


def test_bands_stored_as_terratorch_enumerations_are_their_names(tmp_path, terratorch_bands):
    parameters = {"model_args": {**SMALL, "backbone_bands": list(terratorch_bands)[::-1]}}
    path = lightning_file(tmp_path / "best.ckpt", terratorch_model(32, 2, [8, 8, 4, 4]), **parameters)
    assert convert(path, tmp_path / "out") == 0
    assert PrithviConfig.from_pretrained(tmp_path / "out").bands == PRITHVI_BANDS[::-1]


def test_other_objects_in_stored_parameters_are_refused(tmp_path, capsys, terratorch_bands):
    sys.modules["terratorch.datasets.utils"].HLSBands = None
    terratorch_bands.__qualname__ = terratorch_bands.__name__ = "Transform"
    sys.modules["terratorch.datasets.utils"].Transform = terratorch_bands
    path = lightning_file(tmp_path / "a.ckpt", terratorch_model(32, 2, 8), transform=next(iter(terratorch_bands)))
    refused = assert_refused(capsys, tmp_path, "terratorch.datasets.utils.Transform", path)
    assert "re-save its state dict (Lightning's is under state_dict)" in refused


@pytest.mark.parametrize("module", DATA_MODULES)
def test_data_modules_know_their_statistics(tmp_path, module):
    known = DATA_MODULES[module]
    assert len(known["means"]) == len(known["stds"]) == len(known["dataset_bands"])
    chosen = [known["dataset_bands"][index] for index in (3, 1)]
    data = {"class_path": f"terratorch.datamodules.{module}", "init_args": {}, "dict_kwargs": {"bands": chosen}}
    content = lightning_config({**SMALL, "num_classes": len(known["class_names"])}, data=data)
    config = read_original_config(write(tmp_path / "a.yaml", content))
    assert config.processing["image_mean"] == [known["means"][index] for index in (3, 1)]
    assert config.processing["band_indices"] == [3, 1]
    assert config.processing["first_day_of_year"] == (module == "FireScarsNonGeoDataModule")
    assert list(config.values["id2label"].values()) == known["class_names"]
    data["dict_kwargs"]["bands"] = [3, 1]
    assert read_original_config(write(tmp_path / "a.yaml", content)).processing == config.processing


def test_other_units_and_labels_of_a_run(tmp_path):
    data = {"class_path": "GenericNonGeoSegmentationDataModule"}
    data["init_args"] = {"dataset_bands": ["RED", "GREEN", "DEM"], "output_bands": ["DEM", "RED"]}
    data["init_args"] |= {"means": ["1e-2", 2], "stds": [3, 4.5], "constant_scale": "1e-4", "reduce_zero_label": True}
    data["init_args"] |= {"test_transform": [{"class_path": "ToTensorV2"}]}
    content = lightning_config({**SMALL, "backbone_num_frames": 3}, data=data, ignore_index=255)
    config = read_original_config(write(tmp_path / "a.yaml", content))
    assert config.processing == {
        **{"bands": ["DEM", "RED"], "band_indices": [2, 0], "image_mean": [0.01, 2.0], "image_std": [3.0, 4.5]},
        **{
            "first_day_of_year": 0,
            "rescale_factor": 0.0001,
            "do_reduce_labels": True,
            "ignore_values": [255],
            "num_labels": 2,
        },
    }
    assert "all dates of the first band first" in config.notes[0]


@pytest.mark.parametrize("decoder", ["UNetDecoder", "UperNetDecoder"])
def test_a_regression_predicts_values_of_pixels(tmp_path, capsys, decoder):
    channels = [8, 8, 4, 4] if decoder == "UNetDecoder" else 8
    path = lightning_file(tmp_path / "best.ckpt", terratorch_model(32, 2, channels, labels=1))
    data = {"class_path": "GenericNonGeoPixelwiseRegressionDataModule"}
    data["init_args"] = {"means": MEANS, "stds": STDS, "no_data_replace": 0}
    model_args = {**SMALL, "decoder": decoder, "decoder_channels": channels, "num_classes": None}
    content = lightning_config(model_args, "PixelwiseRegressionTask", data, loss="mae", ignore_index=-9999)
    assert convert(path, tmp_path / "out", "--original_config", write(tmp_path / "mine.conf", content)) == 0
    assert "PrithviForPixelRegression: " in capsys.readouterr().out
    model = PrithviForPixelRegression.from_pretrained(tmp_path / "out").eval()
    assert (model.config.regression_loss, model.config.target_mean, model.config.target_std) == ("mae", 0, 1)
    assert model.config.feature_layers == [0, 1, 1, 1]
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.label_type, processor.target_nodata_value, processor.image_mean) == ("value", -9999, MEANS)
    pixels = torch.rand(1, 6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert model(pixels).predicted_values.shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"0.0.0.weight": (4, 8, 3, 3), "0.0.1.running_var": (4,), "2.weight": (1, 4, 1, 1)}, "head.head.0.0.1.runn"),
        ({"1.weight": (2, 8, 1, 1), "1.bias": (2,)}, "for a regression, found 2 outputs"),
        ({"3.weight": (2, 8, 1, 1)}, "Expected a tensor head.head.2.weight"),
    ],
)
def test_other_heads_are_refused(tmp_path, capsys, head, message):
    tensors = {name: value for name, value in terratorch_model(32, 2, 8).items() if not name.startswith("head.")}
    tensors |= {f"head.head.{name}": torch.ones(shape) for name, shape in head.items()}
    assert_refused(capsys, tmp_path, message, lightning_file(tmp_path / "best.ckpt", tensors))


def test_a_classification_of_images_is_refused(tmp_path, capsys):
    tensors = {name: value for name, value in terratorch_model(32, 2, 8).items() if name.startswith("encoder.")}
    tensors |= {"head.head.2.weight": torch.ones(10, 32), "head.head.2.bias": torch.ones(10)}
    path = lightning_file(tmp_path / "best.ckpt", tensors)
    assert_refused(capsys, tmp_path, "found the head of a classification of images", path)


@pytest.mark.parametrize("size", [{"height": 224, "width": 224}, {"size": [224, 224]}])
def test_landslides_are_enlarged_as_in_training(tmp_path, size):
    """Landslide4Sense has chips of 128 pixels, which its runs enlarge."""
    resize = {"class_path": "albumentations.RandomResizedCrop", "init_args": size}
    data = {"class_path": "terratorch.datamodules.Landslide4SenseNonGeoDataModule"}
    bands = ["BLUE", "GREEN", "RED", "NIR_BROAD", "SWIR_1", "SWIR_2"]
    data["init_args"] = {"bands": bands, "test_transform": [resize, {"class_path": "ToTensorV2"}]}
    path = lightning_file(tmp_path / "landslides.pt", terratorch_model(32, 2, 8))
    content = lightning_config({**SMALL, "decoder": "UperNetDecoder", "decoder_channels": 8}, data=data, loss="focal")
    assert convert(path, tmp_path / "out", "--original_config", write(tmp_path / "mine.conf", content)) == 0
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (config.input_upsampling, config.loss, config.bands) == (1.75, "focal", bands)
    assert config.id2label == {0: "no landslide", 1: "landslide"}
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.image_mean[3], processor.image_std[5]) == (0.0802, 0.9232)
    assert processor.band_indices == [1, 2, 3, 7, 10, 11]


def test_a_unet_without_a_pyramid_is_refused(tmp_path, capsys):
    tensors = terratorch_model(32, 2, [16, 8, 8, 4])
    tensors = {name: value for name, value in tensors.items() if not name.startswith("neck.")}
    path = lightning_file(tmp_path / "best.ckpt", tensors)
    assert_refused(capsys, tmp_path, "a learned pyramid (fpn1, fpn2) before the decoder unet, found none", path)


def test_a_upernet_on_maps_of_one_size_is_converted(tmp_path, capsys):
    tensors = {name: value for name, value in terratorch_model(32, 3, 8).items() if not name.startswith("neck.")}
    for level in range(3):
        tensors[f"decoder.lateral_convs.{level}.conv.weight"] = torch.randn(8, 32, 1, 1)
    path = lightning_file(tmp_path / "best.ckpt", tensors)
    arguments = {**SMALL, "decoder": "UperNetDecoder", "decoder_channels": 8}
    arguments["backbone_kwargs"] = {**SMALL["backbone_kwargs"], "depth": 3}
    arguments["necks"] = [{"name": "SelectIndices", "indices": [0, 1, 1, 2]}, NECKS[1]]
    options = ("--original_config", write(tmp_path / "mine.conf", lightning_config(arguments)))
    assert convert(path, tmp_path / "out", *options) == 0
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert (model.config.neck, model.config.out_indices) == ("token_map", [0, 1, 1, 2])
    assert model(torch.randn(1, 6, 1, 40, 64)).logits.shape == (1, 2, 40, 64)
    assert convert(path, tmp_path / "plain") == 0
    assert "assumed out_indices = [0, 0, 1, 2]" in capsys.readouterr().out
