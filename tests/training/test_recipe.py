# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: YAML and command line, what is refused, and the model and image processor that come of them."""

import re
import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from huggingface_hub.errors import StrictDataclassError

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.training.recipe import Recipe, parse_arguments, read_recipe
from prithvi_hf.training.recipe_options import DataArguments, ModelArguments
from prithvi_hf.training.training_args import TASK_METRICS, PrithviTrainingArguments


CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
BANDS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
SIZES = {
    "image_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "neck_hidden_size": 16,
    "head_hidden_size": 8,
}


@pytest.fixture
def write(tmp_path):
    """Writes a recipe and gives the words of the command line that use it."""

    def write_recipe(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return ["--config", str(path), "--output_dir", str(tmp_path / "out"), "--use_cpu"]

    return write_recipe


@pytest.fixture
def parse(tmp_path):
    return lambda *words: parse_arguments(["--output_dir", str(tmp_path / "out"), "--use_cpu", *words])


def refused(words):
    """Message of the error, for words that must be refused before anything is written."""
    with pytest.raises((ValueError, OSError)) as caught:
        parse_arguments(words)
    return str(caught.value)


# ---------------------------------------------------------------- the files of examples/configs


RECIPES = [path for path in sorted(CONFIGS.glob("*.yaml")) if path.stem != "pretrain"]  # which has other options


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_makes_a_run(path, tmp_path):
    recipe = parse_arguments(["--config", str(path), "--output_dir", str(tmp_path), "--use_cpu"])
    config = PrithviConfig(**recipe.get_config_values())
    processor = recipe.build_image_processor()
    assert isinstance(recipe.training.learning_rate, float)
    if recipe.data.task == "regression":
        assert processor.label_type == "value"
    else:
        assert config.num_labels == len(recipe.data.class_names) == processor.num_labels
    assert list(config.bands) == processor.bands == recipe.data.bands
    assert len(processor.image_mean) == len(processor.image_std) == config.num_channels
    assert config.num_frames == processor.num_frames == recipe.find_num_frames()
    assert recipe.training.load_best_model_at_end or recipe.training.ema_decay  # never simply the last weights
    assert recipe.training.metric_for_best_model in [*TASK_METRICS[recipe.data.task], "loss"]
    assert read_recipe(path).data == recipe.data


def test_the_sen1floods11_recipe_is_the_published_one(tmp_path):
    recipe = parse_arguments(
        ["--config", str(CONFIGS / "sen1floods11.yaml"), "--output_dir", str(tmp_path), "--use_cpu"]
    )
    data, training = recipe.data, recipe.training
    config, processor = PrithviConfig(**recipe.get_config_values()), recipe.build_image_processor()

    assert (data.dataset, data.train_split, data.eval_split) == ("sen1floods11", "train", "validation")
    assert data.test_splits == ["test", "bolivia"]
    assert (data.crop_size, data.augmentation) == (224, "hflip")
    assert (data.num_frames, data.bands, data.band_indices) == (1, BANDS, [1, 2, 3, 8, 11, 12])

    assert (processor.rescale_factor, processor.rescale_offset) == (0.0001, 0.0)
    assert (processor.nodata_value, processor.nodata_replacement, processor.nodata_rule) == (-9999, 0, "all")
    assert processor.image_mean == [0.14245495, 0.13921481, 0.12434631, 0.31420089, 0.20743526, 0.12046503]
    assert processor.image_std == [0.04036231, 0.04186983, 0.05267646, 0.0822221, 0.06834774, 0.05294205]
    assert processor.ignore_values == [-1]
    assert not processor.do_reduce_labels
    assert not processor.mask_nodata_labels

    assert config.id2label == {0: "no water", 1: "water"}
    assert (config.num_frames, config.num_channels, config.image_size, config.tubelet_size) == (1, 6, 224, (1, 16, 16))
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.neck, config.neck_output_size, config.decode_head) == ("conv_transpose", 768, "fcn")
    assert (config.head_num_convs, config.head_hidden_size, config.classifier_dropout) == (1, 256, 0.1)
    assert (config.use_auxiliary_head, config.auxiliary_head_num_convs, config.auxiliary_loss_weight) == (True, 2, 1.0)
    assert (config.loss, config.class_weights) == ("cross_entropy", [0.3, 0.7])
    assert config.semantic_loss_ignore_index == -100

    assert (training.num_train_epochs, training.max_steps, training.per_device_train_batch_size) == (100, -1, 4)
    assert (training.optim, training.learning_rate, training.weight_decay) == ("adamw_torch", 1.5e-5, 0.05)
    assert training.decay_all_parameters
    assert (training.adam_beta1, training.adam_beta2, training.max_grad_norm) == (0.9, 0.999, 0.0)
    assert (training.lr_scheduler_type, training.get_warmup_steps(6300)) == ("mmseg_poly", 1500)
    assert not training.lr_scheduler_kwargs  # power 1, end 0 and warm-up from 1e-6 are the schedule's defaults
    assert (training.eval_window, training.eval_overlap) == (224, 0.5)
    # every 5 of 100 epochs
    assert training.eval_strategy == training.save_strategy == "steps"
    assert training.eval_steps == training.save_steps == 5 / 100


# ---------------------------------------------------------------- the file


def test_an_unknown_option_is_named_with_the_nearest(write):
    message = refused(write("learning_rates: 1.0e-4\nzzzz: 1\nhidden_sise: 32\n"))
    assert "recipe.yaml has unknown option(s)" in message
    assert "learning_rates (did you mean learning_rate?)" in message
    assert "hidden_sise (did you mean hidden_size?)" in message
    assert "zzzz," in message or message.endswith("zzzz. See --help_all for all of them.")


@pytest.mark.parametrize("text", ["1e-4", "'0.0001'", "1e4", "1.5E5"])
def test_a_learning_rate_that_yaml_reads_as_text(write, text):
    message = refused(write(f"learning_rate: {text}\n"))
    assert "recipe.yaml: learning_rate has the wrong type" in message
    assert "expected float, got str" in message
    assert "write 1.0e-4" in message


@pytest.mark.parametrize(
    ("line", "name", "part"),
    [
        ("num_frames: 1.5", "num_frames", "expected int"),
        ("num_frames: true", "num_frames", "expected int, got bool"),
        ("do_train: 'yes'", "do_train", "expected bool, got str"),
        ("test_splits: test", "test_splits", "expected a list, got str"),
        ("class_names: [1, 2]", "class_names", "list[str]"),
        ("class_names: [forest, 2]", "class_names", "number 2 is 2: YAML reads"),
        ("class_names: [no, yes]", "class_names", "number 1 is False, number 2 is True: YAML reads yes, no"),
        ("class_names: [off, 'on']", "class_names", 'in quotes, as in class_names: ["no", "yes"]'),
        ("class_names: [~, crop]", "class_names", "number 1 is None"),
        (
            "class_names: no, yes",
            "class_names",
            "brackets, each text in quotes where YAML reads it otherwise: class_na",
        ),
        ("class_names: yes", "class_names", "number 1 is True"),
        ("bands: [2, 3]", "bands", "number 1 is 2"),
        ("label_map: [255]", "label_map", "expected dict"),
        ("image_mean: [0.1, 1e-4]", "image_mean", "write 1.0e-4"),
        ("augmentation: rot", "augmentation", "'none', 'hflip', 'd4'"),
        ("learning_rate: null", "learning_rate", "expected float, got NoneType"),
        ("dataset_options: [1]", "dataset_options", "list"),
        ("eval_strategy: no", "eval_strategy", "write such a text in quotes"),
        ("model: {a: 1}", "model", "dict"),
    ],
)
def test_wrong_types_are_refused(write, line, name, part):
    message = refused(write(f"{line}\n"))
    assert f"recipe.yaml: {name} has the wrong type" in message
    assert part in message


@pytest.mark.parametrize("name", ["group_by", "data_dir", "model", "train_split", "hub_model_id", "run_name"])
def test_an_empty_text_is_no_value(write, name):
    expected = f"Expected a value of {name}, found an empty text. Give one, or leave"
    assert expected in refused(write(f"{name}: ''\n"))
    assert expected in refused([*write("seed: 1\n"), f"--{name}", " "])


def test_an_empty_text_in_a_list_is_refused_and_none_undoes_a_recipe(write):
    assert "Expected a value of test_splits, found an empty text" in refused(write("test_splits: [test, '']\n"))
    recipe = parse_arguments([*write("group_by: event\n"), "--group_by", "none"])
    assert recipe.data.group_by is None


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1", "\tlearning_rate: 1.0"])
def test_a_file_that_is_no_mapping(write, text):
    assert "recipe.yaml" in refused(write(text))


def test_a_missing_file_and_a_missing_output_folder(tmp_path, write):
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        parse_arguments(["--config", str(tmp_path / "absent.yaml"), "--output_dir", "out"])
    assert "Expected --output_dir" in refused([])
    assert "Expected --output_dir" in refused(write("seed: 1\n")[:2])
    words = write(f"output_dir: {tmp_path / 'from_file'}\n")
    assert parse_arguments(words[:2]).training.output_dir == str(tmp_path / "from_file")
    assert parse_arguments(words).training.output_dir == str(tmp_path / "out")


def test_what_a_file_may_hold(write):
    recipe = parse_arguments(
        write(
            "num_train_epochs: 3\nmax_grad_norm: 0\nclass_weights: [1, 2.5]\nimage_mean: [0, 0, 0, 0, 0, 1]\n"
            "lr_scheduler_kwargs: {power: 0.9}\ndataset_options: {splits: {train: a}, image_suffix: [x, y]}\n"
            "nodata_value: null\neval_window: null\nuse_auxiliary_head: false\ndo_reduce_labels: yes\n"
            "resume_from_checkpoint: 'true'\neval_strategy: 'no'\nlr_scheduler_type: cosine\nwarmup_steps: 0.1\n"
        )
    )
    training = recipe.training
    assert (training.num_train_epochs, training.max_grad_norm, training.eval_window) == (3, 0, None)
    assert recipe.model.class_weights == [1, 2.5]
    assert recipe.model.use_auxiliary_head is False
    assert recipe.data.dataset_options == {"splits": {"train": "a"}, "image_suffix": ["x", "y"]}
    assert (recipe.data.nodata_value, recipe.data.do_reduce_labels) == (None, True)
    assert (training.lr_scheduler_kwargs, training.lr_scheduler_type) == ({"power": 0.9}, "cosine")
    assert (training.resume_from_checkpoint, training.eval_strategy) == ("true", "no")
    assert training.get_warmup_steps(200) == 20


def test_of_several_files_the_later_win(write, tmp_path):
    first = write("learning_rate: 1.0e-3\nclass_names: [a, b]\nseed: 3\n")[1]
    second = tmp_path / "second.yaml"
    second.write_text("learning_rate: 2.0e-3\nimage_mean: [1.0, 2.0]\n")
    recipe = parse_arguments(["--config", first, str(second), "--output_dir", str(tmp_path), "--seed", "4"])
    assert (recipe.training.learning_rate, recipe.training.seed) == (0.002, 4)
    assert (recipe.data.class_names, recipe.data.image_mean) == (["a", "b"], [1.0, 2.0])


def test_a_saved_recipe_repeats_the_run(write, tmp_path):
    words = ["--config", "sen1floods11", "--output_dir", str(tmp_path / "a"), "--use_cpu"]
    words += ["--learning_rate", "1e-5", "--class_weights", "none", "--eval_strategy", "epoch"]
    words += ["--hub_token", "secret"]
    words += ["--dataset_options", '{"cache_dir": "there"}', "--save_strategy", "epoch", "--resume_from_checkpoint"]
    first = parse_arguments([*words, "true"])
    first.save(tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    assert "secret" not in text
    assert "include_num_input_tokens_seen" not in text  # what was not given
    assert yaml.safe_load(text)["dataset_options"] == {"cache_dir": "there"}
    assert "seed: 0" in text
    second = parse_arguments(["--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "b")])
    assert second.data == first.data
    assert second.model == first.model
    assert second.model.class_weights is None
    assert second.training.resume_from_checkpoint is None
    apart = {"output_dir", "hub_token", "resume_from_checkpoint", "run_name", "logging_dir"}
    left, right = (
        {name: value for name, value in recipe.training.to_dict().items() if name not in apart}
        for recipe in (first, second)
    )
    assert left == right
    assert (second.training.learning_rate, second.training.eval_strategy) == (1e-5, "epoch")


def test_read_recipe_leaves_the_training_out(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("learning_rate: 1.0e-3\nhidden_size: 32\nclass_names: [a, b]\n")
    recipe = read_recipe(path)
    assert recipe.given["learning_rate"] == 1.0e-3
    assert (recipe.model.hidden_size, recipe.data.class_names) == (32, ["a", "b"])
    assert recipe.data.test_splits == ["test"]
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "absent.yaml")
    path.write_text("learning_rate: 1e-3\n")
    with pytest.raises(ValueError, match=r"1\.0e-4"):
        read_recipe(path)


# ---------------------------------------------------------------- the command line


def test_the_command_line_wins(write):
    words = write(
        "learning_rate: 1.0e-3\nseed: 5\nclass_names: [a, b]\nclass_weights: [0.3, 0.7]\nnodata_value: -9999\n"
        "augmentation: d4\ndo_predict: false\nhidden_size: 64\nlr_scheduler_type: cosine\ncrop_size: 64\n"
    )
    recipe = parse_arguments(words)
    assert (recipe.training.learning_rate, recipe.training.seed, recipe.training.do_predict) == (1.0e-3, 5, False)
    assert (recipe.data.augmentation, recipe.data.crop_size, recipe.model.hidden_size) == ("d4", 64, 64)
    words += ["--learning_rate", "1e-4", "--class_names", "x", "y z", "w", "--class_weights", "1", "2", "3e0"]
    words += ["--nodata_value", "none", "--augmentation", "none", "--do_predict", "true", "--hidden_size", "32"]
    words += ["--lr-scheduler-type", "linear", "--crop_size", "None"]
    recipe = parse_arguments(words)
    assert (recipe.training.learning_rate, recipe.training.seed, recipe.training.do_predict) == (1.0e-4, 5, True)
    assert (recipe.data.class_names, recipe.model.class_weights) == (["x", "y z", "w"], [1.0, 2.0, 3.0])
    assert (recipe.data.nodata_value, recipe.data.crop_size) == (None, None)
    assert (recipe.data.augmentation, recipe.model.hidden_size) == ("none", 32)  # "none" is an augmentation
    assert recipe.training.lr_scheduler_type == "linear"


def test_none_unsets_lists_and_texts(write, parse):
    words = write("class_weights: [0.3, 0.7]\nband_indices: [1, 2]\nmodel: somewhere\neval_steps: 5\n")
    recipe = parse_arguments(
        [*words, "--class_weights", "none", "--band_indices", "none", "--model", "none", "--eval_steps", "none"]
    )
    assert (recipe.model.class_weights, recipe.data.band_indices, recipe.model.model) == (None, None, None)
    assert recipe.training.eval_steps is None
    assert parse("--report_to", "none").training.report_to == []  # a value of its own
    with pytest.raises(SystemExit):
        parse("--rescale_factor", "much")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--do_train", "false"], False),
        (["--do_train", "No"], False),
        (["--no_do_train"], False),
        (["--do_train"], True),
        (["--do-train", "1"], True),
        ([], True),
    ],
)
def test_switches(parse, words, expected):
    assert parse(*words).training.do_train is expected


def test_data_set_options_are_json(parse):
    options = parse("--dataset_options", '{"image_suffix": ["_a.tif", "_b.tif"], "splits": {"train": "t"}}')
    assert options.data.dataset_options == {"image_suffix": ["_a.tif", "_b.tif"], "splits": {"train": "t"}}
    for text in ("{image_suffix: a}", "[1]", "x"):
        with pytest.raises(ValueError, match=r"--dataset_options as a JSON object.*found"):
            parse("--dataset_options", text)


def test_negative_numbers(parse):
    data = parse("--ignore_values", "-1", "255", "--nodata_value", "-9999").data
    assert (data.ignore_values, data.nodata_value) == ([-1, 255], -9999.0)
    assert parse("--nodata_value=-3.4e38").data.nodata_value == -3.4e38


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rat", "1.0"],  # no abbreviations: a later option could change their meaning
        ["--max_step", "3"],
        ["--conf", "x.yaml"],
        ["--unknown", "1"],
        ["stray"],
        ["--learning_rate", "fast"],
        ["--class_weights"],
        ["--augmentation", "rot"],
    ],
)
def test_wrong_words_are_refused(parse, capsys, words):
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert words[0].lstrip("-") in message
    assert len(message.splitlines()) <= 3  # not the two hundred options


def test_every_option_can_be_given(parse, capsys):
    """Each field of the three groups is an option of the command line and a key of the file."""
    with pytest.raises(SystemExit) as caught:
        parse("--help_all")
    assert caught.value.code == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    names = [
        option.name for group in (ModelArguments, DataArguments, PrithviTrainingArguments) for option in fields(group)
    ]
    assert len(names) == len(set(names)) > 150
    assert not [name for name in names if f"--{name}" not in words and not name.startswith("_")]


def test_every_training_argument_can_stand_in_a_file(write):
    """The defaults, written out as YAML, are accepted and change nothing."""
    values = {
        option.name: getattr(option.default, "value", option.default)
        for option in fields(PrithviTrainingArguments)
        if option.init and option.default is not MISSING and option.name not in ("output_dir", "use_cpu")
    }
    assert len(values) > 90
    words = write(yaml.safe_dump(values))
    recipe, plain = parse_arguments(words), parse_arguments(words[2:])
    for name in values:
        assert repr(getattr(recipe.training, name)) == repr(getattr(plain.training, name)), name


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--max_steps", "7"], "max_steps", 7),
        (["--warmup_steps", "0.1"], "warmup_steps", 0.1),
        (["--gradient_accumulation_steps", "4"], "gradient_accumulation_steps", 4),
        (["--optim", "sgd"], "optim", "sgd"),
        (["--adam_beta2", "0.95"], "adam_beta2", 0.95),
        (["--save_total_limit", "3"], "save_total_limit", 3),
        (["--disable_tqdm", "true"], "disable_tqdm", True),
        (["--dataloader_num_workers", "2"], "dataloader_num_workers", 2),
        (["--dataloader_drop_last"], "dataloader_drop_last", True),
        (["--lr_scheduler_kwargs", '{"power": 0.5}'], "lr_scheduler_kwargs", {"power": 0.5}),
        (["--hub_model_id", "a/b"], "hub_model_id", "a/b"),
        (["--eval_window", "64"], "eval_window", 64),
        (["--eval_overlap", "0"], "eval_overlap", 0.0),
        (["--decay_all_parameters"], "decay_all_parameters", True),
        (["--metric_for_best_model", "loss"], "greater_is_better", False),
        (["--metric_for_best_model", "mean_f1"], "greater_is_better", True),
    ],
)
def test_training_arguments_of_every_kind(parse, words, name, expected):
    assert getattr(parse(*words).training, name) == expected


# ---------------------------------------------------------------- the image processor


def test_the_image_processor_holds_the_data_options(parse):
    data = parse(
        *("--bands", *BANDS[:2], "--image_mean", "1", "2", "--image_std", "3", "4", "--class_names", "a", "b", "c"),
        *("--nodata_rule", "any", "--ignore_values", "255", "--do_reduce_labels", "--num_frames", "2"),
        *("--rescale_factor", "1e-4", "--rescale_offset", "-0.1", "--mask_nodata_labels", "true"),
    )
    processor = data.build_image_processor()
    assert (processor.bands, processor.image_mean, processor.image_std) == (BANDS[:2], [1.0, 2.0], [3.0, 4.0])
    assert (processor.nodata_rule, processor.ignore_values, processor.num_labels) == ("any", [255], 3)
    assert (processor.do_reduce_labels, processor.mask_nodata_labels, processor.num_frames) == (True, True, 2)
    assert (processor.rescale_factor, processor.rescale_offset) == (1e-4, -0.1)
    config = PrithviConfig(**data.get_config_values())
    assert (config.num_channels, config.bands, config.num_frames, config.num_labels) == (2, BANDS[:2], 2, 3)


# ---------------------------------------------------------------- the model


def make_recipe(model=None, classes=("land", "water"), frames=1, **options):
    data = DataArguments(class_names=list(classes), num_frames=frames, bands=BANDS)
    return Recipe(ModelArguments(model=None if model is None else str(model), **options), data)


def make_config(classes=("land", "water"), **options):
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
    return PrithviConfig(**{**SIZES, **labels, "num_frames": 1, **options})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A converted backbone of three frames."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(1)
    sizes = {name: value for name, value in SIZES.items() if name not in ("neck_hidden_size", "head_hidden_size")}
    PrithviModel(PrithviConfig(num_frames=3, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """A fine-tuned model of two classes, with weights and colours of them."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    torch.manual_seed(2)
    config = make_config(class_weights=[0.3, 0.7], class_colors=["#101010", "#0000ff"])
    PrithviForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def encoder_of(model):
    return {name: value for name, value in model.prithvi.state_dict().items() if "position" not in name}


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_random_weights(parse):
    model = make_recipe(**SIZES, attn_implementation="eager", class_weights=[1.0, 2.0]).build_model()
    assert model.config._attn_implementation == "eager"
    assert (model.config.num_frames, model.config.num_labels, model.config.class_weights) == (1, 2, [1.0, 2.0])
    assert model.config.label2id == {"land": 0, "water": 1}
    assert model(torch.randn(1, 6, 1, 32, 32)).logits.shape == (1, 2, 32, 32)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_backbone_of_three_frames_takes_other_frames(backbone, frames):
    torch.manual_seed(3)
    model = make_recipe(backbone, frames=frames, neck_hidden_size=16, head_hidden_size=8).build_model()
    source = PrithviModel.from_pretrained(backbone)
    expected = {name: value for name, value in source.state_dict().items() if "position" not in name}
    assert_equal_weights(encoder_of(model), expected)
    assert (model.config.num_frames, model.config.hidden_size, model.config.num_hidden_layers) == (frames, 32, 2)
    positions = PrithviModel(PrithviConfig(num_frames=frames, **SIZES)).embeddings.position_embeddings
    torch.testing.assert_close(model.prithvi.embeddings.position_embeddings, positions)
    # neck and heads are as fresh ones are: spread, and no value left over from memory
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all(), name
    assert 0 < model.decode_head.classifier.weight.std() < 0.05
    assert model(torch.randn(1, 6, frames, 32, 32)).logits.shape == (1, 2, 32, 32)


def test_the_encoder_of_one_frame_computes_what_the_backbone_computes(backbone):
    model = make_recipe(backbone, neck_hidden_size=16, head_hidden_size=8).build_model().eval()
    pixel_values = torch.randn(1, 6, 1, 32, 32)
    with torch.no_grad():
        expected = PrithviModel.from_pretrained(backbone, num_frames=1).eval()(pixel_values).last_hidden_state
        torch.testing.assert_close(model.prithvi(pixel_values).last_hidden_state, expected)


def test_the_home_folder_is_known(fine_tuned, monkeypatch):
    monkeypatch.setenv("HOME", str(fine_tuned.parent))
    assert make_recipe(f"~/{fine_tuned.name}").build_model().config.num_labels == 2


def test_a_fine_tuned_model_keeps_its_heads(fine_tuned):
    model = make_recipe(fine_tuned, classes=("dry", "wet")).build_model()
    expected = PrithviForSemanticSegmentation.from_pretrained(fine_tuned)
    assert_equal_weights(model.state_dict(), expected.state_dict())
    assert model.config.id2label == {0: "dry", 1: "wet"}  # the recipe's names
    assert model.config.class_weights == [0.3, 0.7]
    assert make_recipe(fine_tuned, class_weights=[1.0, 1.0]).build_model().config.class_weights == [1.0, 1.0]


def test_other_classes_give_new_classifiers(fine_tuned):
    torch.manual_seed(3)
    model = make_recipe(fine_tuned, classes=("a", "b", "c")).build_model()
    expected = PrithviForSemanticSegmentation.from_pretrained(fine_tuned)
    assert_equal_weights(encoder_of(model), encoder_of(expected))
    assert_equal_weights(model.neck.state_dict(), expected.neck.state_dict())
    assert (model.config.num_labels, model.config.id2label[2]) == (3, "c")
    # what was said of each of the two classes holds no longer
    assert (model.config.class_weights, model.config.class_colors) == (None, None)
    assert model.decode_head.classifier.weight.shape[0] == 3
    assert torch.isfinite(model.decode_head.classifier.weight).all()
    assert 0 < model.decode_head.classifier.weight.std() < 0.05
    assert model(torch.randn(1, 6, 1, 32, 32)).logits.shape[1] == 3
    weighted = make_recipe(fine_tuned, classes=("a", "b", "c"), class_weights=[1.0, 2.0, 3.0]).build_model()
    assert weighted.config.class_weights == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"hidden_size": 64}, "hidden_size"),
        ({"mlp_ratio": 2.0}, "mlp_ratio"),
        ({"patch_size": [1, 8, 8]}, "patch_size"),
        ({"num_hidden_layers": 3}, "num_hidden_layers"),
    ],
)
def test_a_recipe_that_contradicts_the_backbone_is_refused(backbone, options, part):
    with pytest.raises(ValueError, match=rf"{part}: .* has .*, the recipe asks for .*Leave these options out"):
        make_recipe(backbone, **options).build_model()


def patch_weights(model):
    return model.base_model.embeddings.patch_embeddings.weight.detach()


def test_other_bands_take_the_weights_of_their_names(backbone):
    recipe = make_recipe(backbone)
    recipe.data.bands = ["SWIR_1", "B04", "THERMAL_INFRARED_1"]
    model = recipe.build_model()
    source = patch_weights(PrithviModel.from_pretrained(backbone))
    assert model.config.bands == ["SWIR_1", "B04", "THERMAL_INFRARED_1"]
    assert model.config.num_channels == 3
    found = patch_weights(model)
    assert torch.equal(found[:, 0], source[:, 4])
    assert torch.equal(found[:, 1], source[:, 2])
    assert torch.allclose(found[:, 2], source.mean(dim=1))
    assert model(torch.randn(1, 3, 1, 32, 32)).logits.shape == (1, 2, 32, 32)


def test_the_same_bands_in_another_order_are_reordered(backbone):
    recipe = make_recipe(backbone)
    recipe.data.bands = BANDS[::-1]
    model = recipe.build_model()
    assert torch.equal(patch_weights(model), patch_weights(PrithviModel.from_pretrained(backbone)).flip(1))


def test_statistics_follow_the_bands(fine_tuned, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fine_tuned, folder)
    saved = PrithviImageProcessor(image_mean=[1, 2, 3, 4, 5, 6], image_std=[10, 20, 30, 40, 50, 60])
    saved.save_pretrained(folder)
    recipe = make_recipe(folder)
    recipe.data.bands = ["SWIR_2", "B04"]
    processor = recipe.build_image_processor()
    assert (processor.bands, processor.image_mean, processor.image_std) == (["SWIR_2", "B04"], [6, 3], [60, 30])
    recipe.data.bands = ["RED", "VV"]
    with pytest.raises(ValueError, match="image_mean and image_std of the bands RED, VV"):
        recipe.build_image_processor()
    recipe.data.image_mean, recipe.data.image_std = [3.0, 0.5], [30.0, 0.1]
    assert recipe.build_image_processor().image_mean == [3.0, 0.5]


def test_bands_of_a_checkpoint_that_mixes_bands_and_dates_cannot_be_picked(fine_tuned, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fine_tuned, folder)
    PrithviImageProcessor(num_frames=3, frame_order="original_crop").save_pretrained(folder)
    recipe = make_recipe(folder)
    assert recipe.build_image_processor().frame_order == "original_crop"
    recipe.data.bands = BANDS[:3]
    with pytest.raises(ValueError, match="mix bands and dates"):
        recipe.build_image_processor()


def test_new_bands_cannot_be_evaluated(fine_tuned):
    recipe = make_recipe(fine_tuned, **{name: SIZES[name] for name in ("neck_hidden_size", "head_hidden_size")})
    recipe.data.bands = [*BANDS, "VV"]
    with pytest.raises(ValueError, match="the band VV"):
        recipe.build_model(may_add_weights=False)


def test_a_frozen_backbone(backbone):
    model = make_recipe(backbone, freeze_backbone=True).build_model()
    assert not any(parameter.requires_grad for parameter in model.prithvi.parameters())
    assert all(parameter.requires_grad for parameter in model.neck.parameters())
    assert all(parameter.requires_grad for parameter in model.decode_head.parameters())
    free = make_recipe(backbone).build_model()
    assert all(parameter.requires_grad for parameter in free.parameters())


def test_fewer_layers_keep_the_first(backbone):
    model = make_recipe(backbone, num_hidden_layers=1, neck_hidden_size=16, head_hidden_size=8).build_model()
    source = PrithviModel.from_pretrained(backbone)
    assert len(model.prithvi.layers) == 1
    assert_equal_weights(model.prithvi.layers[0].state_dict(), source.layers[0].state_dict())
    assert_equal_weights(model.prithvi.layernorm.state_dict(), source.layernorm.state_dict())


def test_what_fits_may_be_repeated(backbone):
    options = {"hidden_size": 32, "mlp_ratio": 4.0, "patch_size": [1, 16, 16], "num_attention_heads": 4}
    model = make_recipe(backbone, **options, neck_hidden_size=16, head_hidden_size=8).build_model()
    assert model.config.num_attention_heads == 4  # of no weight's shape, and the published crop model depends on it


@pytest.mark.parametrize("name", ["{}/absent", "./absent", "out/of/place", "~/absent"])
def test_a_missing_model_is_refused(tmp_path, name):
    source = name.format(tmp_path)
    with pytest.raises(
        ValueError, match=f"no model folder {Path(source).expanduser() if source[0] == '~' else source}"
    ):
        make_recipe(source).build_model()


def test_what_is_no_converted_model_is_refused(tmp_path):
    """The first things that people give: the original file, its repository, another model."""
    original = tmp_path / "Prithvi_100M.pt"
    torch.save({}, original)
    with pytest.raises(ValueError, match=rf"found the file {original}\. .*prithvi-hf convert {original} FOLDER"):
        make_recipe(original).build_model()
    for name, content in (("original", '{"architecture": "prithvi_eo_v1_100"}'), ("vit", '{"model_type": "vit"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        with pytest.raises(
            ValueError, match=rf"config\.json of .*{name} to be of model_type 'prithvi', found .*convert"
        ):
            make_recipe(tmp_path / name).build_model()


def test_new_heads_cannot_be_evaluated(backbone, fine_tuned):
    """Without training, heads of other shapes would be random and their figures meaningless."""
    for source, options in ((backbone, {}), (fine_tuned, {"head_hidden_size": 16})):
        with pytest.raises(ValueError, match=r"found no weights in .* that fit .*--do_train true"):
            make_recipe(source, **options).build_model(may_add_weights=False)
    assert make_recipe(fine_tuned).build_model(may_add_weights=False).config.num_labels == 2


def test_frames_left_open_are_those_of_a_fine_tuned_model(backbone, tmp_path):
    three = tmp_path / "three"
    PrithviForSemanticSegmentation(make_config(num_frames=3)).save_pretrained(three)
    recipe = make_recipe(three, frames=None)
    assert recipe.build_model().config.num_frames == recipe.build_image_processor().num_frames == 3
    assert make_recipe(backbone, frames=None).find_num_frames() == 1, "a backbone is built for no number of frames"
    assert make_recipe(frames=None).find_num_frames() == 1


def test_image_options_left_open_come_from_the_starting_model(fine_tuned, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fine_tuned, folder)
    saved = PrithviImageProcessor(
        rescale_factor=1e-4, image_mean=[0.1] * 6, image_std=[0.2] * 6, nodata_value=-9999, ignore_values=[7]
    )
    saved.save_pretrained(folder)
    processor = make_recipe(folder).build_image_processor()
    assert (processor.rescale_factor, processor.image_mean, processor.nodata_value) == (1e-4, [0.1] * 6, -9999)
    assert processor.ignore_values is None, "labels are those of the new data"
    recipe = make_recipe(folder)
    recipe.data.rescale_factor = 1.0
    assert recipe.build_image_processor().rescale_factor == 1.0
    assert make_recipe(fine_tuned).build_image_processor().rescale_factor == 1.0, "no processor beside that one"


@pytest.mark.parametrize("path", sorted((CONFIGS.parent / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_settings_are_known_to_accelerate(path):
    settings = load_config_from_file(str(path))  # an unknown key is an error
    assert settings.num_processes >= 1


def test_a_class_may_be_called_none_on_the_command_line():
    recipe = parse_arguments(["--output_dir", "x", "--class_names", "none", "crop"])
    assert recipe.data.class_names == ["none", "crop"]
    assert parse_arguments(["--output_dir", "x", "--class_names", "none"]).data.class_names is None


BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i}, ' * 9}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("seed: 1\nlearning_rate: 0.1\nseed: 2\n", "seed twice.*line 1"),
        ("published: {test: {mean_iou: 1, mean_iou: 2}}\n", "mean_iou twice"),
        ("class_names: " + "[" * 50 + "]" * 50, "more than 20 levels"),
        ("class_names: " + "[" * 20_000, "maximum recursion depth"),
        (BOMB, "more than 100,000 values"),
        ("class_names: &names [*names]", "levels"),
        ("learning_rate: .nan", "expected numbers for learning_rate, found NaN"),
        ("image_mean: [1.0, .NaN]", "expected numbers for image_mean, found NaN"),
        ('class_names: ["a\\0b", c]', "a control character"),
        ('class_names: ["\\ud800", c]', "half of a surrogate pair"),
        ("class_names: [a\0b, c]", "not allowed"),
        ("max_steps: " + "9" * 5000, "limit"),
        ("# " + "x" * 1_000_000, "more than 1,000,000 bytes"),
        ("class_names: [yes, no]", "YAML reads yes, no"),
        ("? [a, b]\n: 1\n", "unhashable"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_no_recipe_holds_is_named(write, text, found):
    path = write(text)[1]
    with pytest.raises(ValueError, match=re.compile(f"{re.escape(str(path))}.*{found}", re.DOTALL)):
        read_recipe(path)


def test_an_alias_may_stand_where_it_is_small(write):
    path = write("nodata_value: .nan\nimage_mean: &m [0.1, 0.2]\nimage_std: *m")[1]
    assert read_recipe(path).data.image_std == [0.1, 0.2]


# ---------------------------------------------------------------- the baseline


def test_a_baseline_on_the_command_line_leaves_the_encoder_of_a_recipe_out(write, caplog):
    words = write("num_hidden_layers: 6\ndecode_head: upernet\nfreeze_backbone: true\nclassifier_dropout: 0.2\n")
    recipe = parse_arguments([*words, "--architecture", "unet"])
    assert "the recipe's decode_head, freeze_backbone, num_hidden_layers are left out" in caplog.text
    config = recipe.build_model().config
    assert (config.architecture, config.classifier_dropout) == ("unet", 0.2)
    again = recipe.given
    assert again["architecture"] == "unet"
    assert "num_hidden_layers" not in again


@pytest.mark.parametrize(
    "words",
    [
        ["--hidden_size", "64"],
        ["--num_hidden_layers", "12"],  # the default of the configuration, but given
        ["--freeze_backbone", "true"],
        ["--attn_implementation", "eager"],
        ["--activation_checkpointing", "true"],
        ["--use_auxiliary_head", "true"],
    ],
)
def test_options_of_an_encoder_beside_a_baseline_are_refused(parse, words):
    with pytest.raises((ValueError, StrictDataclassError), match=words[0][2:]):
        parse("--architecture", "unet", *words).build_model()
    words[-1] = "none" if words[-1] != "true" else "false"
    parse("--architecture", "unet", *words).build_model()


def test_a_baseline_starts_from_a_baseline_alone(parse, tmp_path):
    baseline, backbone = str(tmp_path / "baseline"), str(tmp_path / "backbone")
    PrithviForSemanticSegmentation(PrithviConfig(architecture="unet", num_frames=1)).save_pretrained(baseline)
    PrithviModel(PrithviConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(backbone)
    with pytest.raises(ValueError, match=r"architecture: .* has prithvi, the recipe asks for unet.*or --model"):
        parse("--model", backbone, "--architecture", "unet").build_model()
    classes = ["--class_names", "a", "b", "c", "--bands", "RED", "NIR_NARROW"]
    model = parse("--model", baseline, *classes).build_model()
    assert model.config.architecture == "unet"
    assert model.config.num_labels == 3
    weights = PrithviForSemanticSegmentation.from_pretrained(baseline).state_dict()
    name = "model.patch_embeddings.weight"
    torch.testing.assert_close(model.state_dict()[name], weights[name][:, [2, 3]])
    with pytest.raises(ValueError, match=r"found other shapes: .*patch_embeddings"):
        parse("--model", baseline, "--num_frames", "3").build_model()
    with pytest.raises((ValueError, StrictDataclassError), match="num_hidden_layers"):
        parse("--model", baseline, "--num_hidden_layers", "2").build_model()
