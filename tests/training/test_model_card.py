# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a run leaves for people: learning curves, sample predictions, the model card."""

import ast
import re

import pytest
from huggingface_hub import ModelCard

from prithvi_hf.data import SplitAudit
from prithvi_hf.outputs.figures import save_chart
from prithvi_hf.training.model_card import make_curve_figure, write_model_card
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_options import DataArguments, ModelArguments
from prithvi_hf.training.training_args import PrithviTrainingArguments
from tests.scene_factory import tiny_model, tiny_processor
from tests.training.test_sample_pictures import COLORS, colors_in, png_size


# ---------------------------------------------------------------- curves


def test_learning_curves(tmp_path):
    history = [
        {"step": 1, "loss": 0.9, "learning_rate": 1.0e-3, "epoch": 0.5},
        {"step": 2, "eval_loss": 0.8, "eval_mean_iou": 0.4},
        {"step": 2, "loss": 0.7, "learning_rate": 0.5e-3},
        {"step": 4, "eval_loss": None, "eval_mean_iou": None},  # every pixel ignored
        {"step": 4, "train_loss": 0.8, "train_runtime": 1.0},
    ]
    save_chart(make_curve_figure(history), tmp_path / "full.png")
    width, height = png_size(tmp_path / "full.png")
    assert width > 2 * height > 600
    save_chart(make_curve_figure([]), tmp_path / "empty.png")  # a run without a logged step
    assert png_size(tmp_path / "empty.png") == (width, height)
    full, empty = (colors_in(tmp_path / name) for name in ("full.png", "empty.png"))
    lines = {(31, 119, 180), (255, 127, 14)}  # matplotlib's first two
    assert lines <= set(full)
    assert not lines & set(empty)


@pytest.fixture
def model():
    return tiny_model(class_colors=COLORS)


# ---------------------------------------------------------------- the card


RESULTS = {
    "eval_mean_iou": 0.61234567,
    "eval_mean_accuracy": 0.7,
    "eval_overall_accuracy": 0.8,
    "eval_mean_f1": 0.75,
    "eval_calibration_error": 0.01234567,
    "eval_per_category_iou": [0.9, 0.32469134, None],
    "test_mean_iou": None,
    "test_mean_accuracy": None,
    "test_overall_accuracy": None,
    "test_mean_f1": None,
    "test_per_category_iou": [None, None, None],
    "epoch": 2.5,
}


def write_card(folder, model, processor, results=RESULTS, splits=None, start=None, **training):
    arguments = PrithviTrainingArguments(
        output_dir=str(folder), use_cpu=True, num_train_epochs=100, learning_rate=1.5e-5, **training
    )
    data = DataArguments(dataset="geotiff_folder", crop_size=32)
    recipe = TrainingRecipe(ModelArguments(model=start), data, training=arguments)
    folder.mkdir(exist_ok=True)
    write_model_card(
        folder, recipe, processor, model, results, {"eval": "validation", "test": "test"} if splits is None else splits
    )
    return (folder / "README.md").read_text()


def test_the_card_states_figures_and_input(tmp_path, model):
    processor = tiny_processor(rescale_factor=0.0001, rescale_offset=-0.1, nodata_value=-9999)
    text = write_card(tmp_path / "floods", model, processor, start="some/backbone", weight_decay=0.05)
    lines = text.splitlines()
    assert "# floods" in lines
    assert "| split | Mean IoU | Mean accuracy | Overall accuracy | Mean F1 | Calibration error |" in lines
    assert "| validation | 61.23 | 70.00 | 80.00 | 75.00 | 1.23 |" in lines
    assert "| test | - | - | - | - | - |" in lines
    assert "| split | no water | water | cloud |" in lines
    assert "| validation | 90.00 | 32.47 | - |" in lines
    assert "| test | - | - | - |" in lines
    assert [f"{index}. {name}" for index, name in enumerate(("no water", "water", "cloud"))] == [
        line for line in lines if line[:3] in ("0. ", "1. ", "2. ")
    ]
    assert "from `some/backbone`" in text
    assert "multiplied by 0.0001, -0.1 is added, then normalised" in text
    assert "-9999" in text
    assert all(f"| {band} | " in text for band in processor.bands)
    assert "- epochs: 2.5" in lines  # those done, not those planned
    assert "- learning rate: 1.5e-05, mmseg_poly schedule" in lines
    assert 'model="floods"' in text
    assert "None" not in text
    assert str(tmp_path) not in text


def test_the_card_is_read_by_the_hub(tmp_path, model):
    write_card(tmp_path / "floods", model, tiny_processor(), hub_model_id="user/floods")
    card = ModelCard.load(tmp_path / "floods" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.model_name == "user/floods"
    assert "prithvi" in card.data.tags
    [result] = card.data.eval_results  # the split without a figure is left out
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("validation", "mean_iou", 0.6123)
    assert "from random weights" in card.content


def test_a_card_without_any_evaluation(tmp_path, model):
    text = write_card(tmp_path / "out", model, tiny_processor(), results={"epoch": 1.0}, splits={})
    assert ModelCard(text).data.eval_results is None
    assert "| split |" not in text
    assert "Not evaluated." in text


def audit(name, digest):
    return SplitAudit(name, 3, (10, 20, 30), (1, 2, 3), 4, 5, {(32, 32): 3}, digest)


def test_the_card_says_what_the_data_were(tmp_path, model):
    audits = {"train": audit("train", "a" * 64), "validation": audit("validation", "b" * 64)}
    audits["test"] = audit("test", "b" * 64)
    processor = tiny_processor()
    arguments = PrithviTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    recipe = TrainingRecipe(ModelArguments(), DataArguments(), training=arguments)
    write_model_card(tmp_path, recipe, processor, model, RESULTS, {"eval": "validation"}, audits)
    text = (tmp_path / "README.md").read_text()
    assert f"| train | 3 | 60 | `{'a' * 64}` |" in text
    assert "`test` holds the same chips as `validation`: it is not an independent test." in text
    assert "`validation` holds" not in text
    assert '("scene.tif")' in text


def test_the_card_of_several_dates_shows_a_tuple(tmp_path):
    text = write_card(tmp_path / "card", tiny_model(num_frames=2), tiny_processor(num_frames=2))
    assert '(("date_1.tif", "date_2.tif"))' in text


def test_the_card_says_that_a_model_takes_dates_and_places(tmp_path, model):
    assert "also takes" not in write_card(tmp_path / "plain", model, tiny_processor())
    encoded = tiny_model(coords_encoding=["time", "location"])
    text = write_card(tmp_path / "card", encoded, tiny_processor())
    assert "The model also takes dates (`dates=[...]`, where" in text
    assert "and places (`location=(latitude, longitude)`" in text


NAMES = [
    "# A heading",
    "a | b",
    "<script>alert(1)</script>",
    "x\n\n---\nlicense: mit\n---",
    "[l](javascript:1) `c`",
    "- 1. *i*",
]


def test_names_of_classes_are_text_in_the_card(tmp_path):
    """Neither headings, cells, scripts, links nor metadata."""
    model = tiny_model()
    model.config.id2label = dict(enumerate(NAMES))
    arguments = PrithviTrainingArguments(output_dir=str(tmp_path), use_cpu=True, hub_model_id='o/"); import os #`')
    recipe = TrainingRecipe(ModelArguments(), DataArguments(class_names=NAMES), training=arguments)
    results = {**RESULTS, "eval_mean_iou": 0.5, "eval_per_category_iou": [0.5] * 6}
    write_model_card(tmp_path, recipe, tiny_processor(), model, results, {"eval": "va|lid\n# x"})
    text = (tmp_path / "README.md").read_text()
    lines = text.splitlines()
    headings = {"Classes", "Results (%)", "Input", "Data", "Training"}
    assert {line.lstrip("# ") for line in lines if line.startswith("#")} - headings == {'o/"); import os #\\`'}
    assert "<script" not in text
    assert "javascript" not in re.sub(r"\\\[l\\\]\(javascript", "", text)
    assert ModelCard.load(tmp_path / "README.md").data.license == "apache-2.0"
    assert sum(line == "---" for line in lines) == 2
    table = [line for line in lines if line.startswith("| va\\|lid # x |")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [7, 8]
    rows = [line for line in lines if re.match(r"\d\. ", line)]
    assert rows[0] == "0. \\# A heading"
    assert len(rows) == 6
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    [call] = [
        node for node in ast.walk(ast.parse(code)) if getattr(getattr(node, "func", None), "id", "") == "pipeline"
    ]
    assert call.keywords[0].value.value == """o/"); import os #'"""
