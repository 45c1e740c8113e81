# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of pushing with the code, and of loading what was pushed with and without prithvi_hf."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    pipeline,
)

from prithvi_hf import (
    PrithviBackbone,
    PrithviConfig,
    PrithviForImageClassification,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
    push_folder_to_hub,
)
from prithvi_hf.models.prithvi.pipeline_prithvi import (
    GeospatialClassificationPipeline,
    GeospatialRegressionPipeline,
    GeospatialSegmentationPipeline,
    register_pipeline,
)
from prithvi_hf.models.prithvi.remote_code_prithvi import (
    CUSTOM_PIPELINES,
    IMAGE_PROCESSOR_AUTO_MAP,
    MODEL_AUTO_MAP,
    source_files,
)
from tests.hub_server import USER
from tests.scene_factory import tiny_model, tiny_regressor


TASK = "geospatial-segmentation"
REPO = f"{USER}/prithvi-test"
CODE = {path.name for path in source_files()}


@pytest.fixture
def here(hub, monkeypatch):
    """The Hub, for this process as well."""
    hub.redirect_this_process(monkeypatch)
    return hub


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = PrithviConfig(
        image_size=32,
        num_frames=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        neck_hidden_size=8,
        head_hidden_size=8,
        id2label={0: "land", 1: "water", 2: "cloud"},
        label2id={"land": 0, "water": 1, "cloud": 2},
    )
    return PrithviForSemanticSegmentation(config).eval()


@pytest.fixture
def processor():
    return PrithviImageProcessor(nodata_value=-9999, image_mean=[1000.0] * 6, image_std=[500.0] * 6)


@pytest.fixture
def chip():
    return 500 + 1000 * torch.rand(6, 32, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def output_folder(tmp_path, model, processor):
    """What a training run leaves behind."""
    folder = tmp_path / "OUT"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\npipeline_tag: image-segmentation\n---\n# Card\n"
    )
    (folder / "all_results.json").write_text('{"eval_mean_iou": 0.5}')
    for name in ("curves.png", "samples/one.png", "checkpoint-5/model.safetensors", "checkpoint-5/optimizer.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"content")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", ".hidden", "runs/x/events.1"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"content")
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def config_fields(model):
    """The fields of a model's configuration but for two, which transformers sets whenever a model is saved."""
    return {key: value for key, value in vars(model.config).items() if key not in ("architectures", "dtype")}


def saved_json(folder, name="config.json"):
    return json.loads((Path(folder) / name).read_text())


# ---------------------------------------------------------------- pushing


def test_push_adds_code_and_mappings_and_changes_nothing_here(here, model, processor, tmp_path):
    before = config_fields(model)
    model.push_to_hub(REPO)
    processor.push_to_hub(REPO, commit_message="Add the processor")
    files = here.files(REPO)
    assert set(files) == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} | CODE
    assert [commit.message for commit in here.commits(REPO)] == [
        "Upload PrithviForSemanticSegmentation",
        "Add the processor",
    ]
    config = here.json(REPO, "config.json")
    assert config["auto_map"] == MODEL_AUTO_MAP
    assert config["custom_pipelines"] == {TASK: CUSTOM_PIPELINES[TASK]}
    assert here.json(REPO, "preprocessor_config.json")["auto_map"] == IMAGE_PROCESSOR_AUTO_MAP
    assert all(files[path.name] == path.read_bytes() for path in source_files())
    assert config_fields(model) == before
    assert not {"auto_map", "custom_pipelines"} & (set(vars(model.config)) | set(vars(processor)))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    del config["auto_map"], config["custom_pipelines"]
    assert saved_json(tmp_path) == config


def test_a_refused_push_changes_nothing(here, model, processor):
    here.read_only = True
    before = config_fields(model)
    for pushed in (model, processor):
        with pytest.raises(HfHubHTTPError, match="403"):
            pushed.push_to_hub(REPO)
    assert here.files(REPO) == {}
    assert config_fields(model) == before
    assert not hasattr(model.config, "auto_map")
    assert "auto_map" not in processor.to_dict()


def test_a_backbone_is_pushed_without_a_pipeline(here, model):
    model.prithvi.push_to_hub(REPO)
    config = here.json(REPO, "config.json")
    assert config["architectures"] == ["PrithviModel"]
    assert config["auto_map"] == MODEL_AUTO_MAP
    assert "custom_pipelines" not in config
    assert isinstance(AutoModel.from_pretrained(REPO), PrithviModel)


def test_push_to_a_branch_with_tags(here, model):
    model.push_to_hub(REPO, revision="trial", tags=["floods"], commit_description="longer")
    assert here.files(REPO) == {}
    assert b"floods" in here.files(REPO, revision="trial")["README.md"]
    assert "auto_map" in here.json(REPO, "config.json", revision="trial")
    assert PrithviForSemanticSegmentation.from_pretrained(REPO, revision="trial").config.num_labels == 3


def test_saving_with_push_completes_the_upload_alone(here, model, processor, tmp_path):
    (tmp_path / "notes.txt").write_text("not changed by saving, so not pushed")
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=REPO)
    processor.save_pretrained(str(tmp_path), push_to_hub=True, repo_id=REPO)  # transformers takes no Path here
    assert set(here.files(REPO)) >= CODE | {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert "notes.txt" not in here.files(REPO)
    assert "auto_map" in here.json(REPO, "config.json")
    assert "auto_map" not in saved_json(tmp_path)
    assert not list(tmp_path.glob("*.py"))


def test_a_pipeline_pushes_everything_at_once(here, model, processor):
    register_pipeline()
    GeospatialSegmentationPipeline(model=model, image_processor=processor).push_to_hub(REPO)
    assert len(here.commits(REPO)) == 1
    assert here.json(REPO, "config.json")["auto_map"] == MODEL_AUTO_MAP
    assert here.json(REPO, "config.json")["custom_pipelines"] == {TASK: CUSTOM_PIPELINES[TASK]}
    assert here.json(REPO, "preprocessor_config.json")["auto_map"] == IMAGE_PROCESSOR_AUTO_MAP


# ---------------------------------------------------------------- pushing a folder


def test_an_output_folder_goes_in_one_commit_without_checkpoints(here, output_folder):
    before = contents(output_folder)
    commit = push_folder_to_hub(output_folder, "prithvi-test", commit_message="Floods")
    kept = {"README.md", "all_results.json", "curves.png", "samples/one.png"}
    saved = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert set(here.files(REPO)) == kept | saved | CODE
    assert [(made.oid, made.message) for made in here.commits(REPO)] == [(commit.oid, "Floods")]
    assert here.json(REPO, "config.json")["custom_pipelines"] == {TASK: CUSTOM_PIPELINES[TASK]}
    assert here.json(REPO, "preprocessor_config.json")["auto_map"] == IMAGE_PROCESSOR_AUTO_MAP
    assert here.files(REPO)["model.safetensors"] == before["model.safetensors"]
    assert contents(output_folder) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"lacks config.json; pass the output folder"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"lacks model.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), r"lacks preprocessor_config.json"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'),
            r"must be .*prithvi.*, found 'vit'",
        ),
    ],
)
def test_a_folder_that_is_no_model_is_refused_before_anything_is_created(here, output_folder, damage, message):
    damage(output_folder)
    with pytest.raises(ValueError, match=message):
        push_folder_to_hub(output_folder, REPO)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        push_folder_to_hub(output_folder / "absent", REPO)
    assert here.requests == []


def test_a_refused_folder_push_leaves_the_folder(here, output_folder):
    here.read_only = True
    before = contents(output_folder)
    with pytest.raises(HfHubHTTPError, match="403"):
        push_folder_to_hub(output_folder, REPO)
    assert contents(output_folder) == before


# ---------------------------------------------------------------- loading with prithvi_hf


@pytest.mark.parametrize("trust_remote_code", [None, False, True])
def test_the_installed_classes_load_a_pushed_repository(here, output_folder, chip, trust_remote_code):
    register_pipeline()
    push_folder_to_hub(output_folder, REPO)
    options = {} if trust_remote_code is None else {"trust_remote_code": trust_remote_code}
    assert type(AutoConfig.from_pretrained(REPO, **options)) is PrithviConfig
    assert type(AutoModel.from_pretrained(REPO, **options)) is PrithviModel
    assert type(AutoModelForSemanticSegmentation.from_pretrained(REPO, **options)) is PrithviForSemanticSegmentation
    assert type(AutoImageProcessor.from_pretrained(REPO, **options)) is PrithviImageProcessor
    if trust_remote_code is None:
        pipe = pipeline(TASK, model=REPO)  # asks for no trust
        assert type(pipe) is GeospatialSegmentationPipeline
        assert pipe(chip.numpy()).mask.shape == (32, 40)


def test_what_was_loaded_from_the_hub_is_saved_without_mappings(here, output_folder, tmp_path):
    push_folder_to_hub(output_folder, REPO)
    PrithviForSemanticSegmentation.from_pretrained(REPO).save_pretrained(tmp_path / "again")
    PrithviImageProcessor.from_pretrained(REPO).save_pretrained(tmp_path / "again")
    AutoConfig.from_pretrained(REPO).save_pretrained(tmp_path / "config")
    names = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    for values in (
        saved_json(tmp_path / "again"),
        saved_json(tmp_path / "again", "preprocessor_config.json"),
        saved_json(tmp_path / "config"),
    ):
        assert not {"auto_map", "custom_pipelines"} & set(values)


def test_a_saved_pipeline_loads_without_trust(model, processor, chip, tmp_path):
    register_pipeline()
    GeospatialSegmentationPipeline(model=model, image_processor=processor).save_pretrained(tmp_path)
    assert "custom_pipelines" not in saved_json(tmp_path)
    assert pipeline(TASK, model=str(tmp_path))(chip.numpy()).mask.shape == (32, 40)


# ---------------------------------------------------------------- loading without prithvi_hf

WITHOUT_THE_PACKAGE = """
import sys

sys.modules["prithvi_hf"] = None  # as if it were not installed
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

source, folder, target = sys.argv[1:]
chip = load_file(f"{folder}/chip.safetensors")["chip"]
try:
    AutoModelForSemanticSegmentation.from_pretrained(source, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise AssertionError("loaded without trust")
config = AutoConfig.from_pretrained(source, trust_remote_code=True)
assert config.model_type == "prithvi" and config.id2label[2] == "cloud"
model = AutoModelForSemanticSegmentation.from_pretrained(source, trust_remote_code=True).eval()
backbone = AutoModel.from_pretrained(source, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=True)
pixel_values = processor(chip, return_tensors="pt")["pixel_values"]
pipe = pipeline("geospatial-segmentation", model=source, trust_remote_code=True)
with torch.no_grad():
    results = {
        "pixel_values": pixel_values,
        "logits": model(pixel_values).logits,
        "tokens": backbone(pixel_values).last_hidden_state,
        "mask": torch.as_tensor(pipe(chip.numpy()).mask),
    }
save_file({name: tensor.contiguous() for name, tensor in results.items()}, f"{folder}/results.safetensors")
for loaded in (config, model, backbone, processor, pipe):
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
if target:
    model.push_to_hub(target)
    processor.push_to_hub(target)
    model.save_pretrained(f"{folder}/saved")
    processor.save_pretrained(f"{folder}/saved")
"""


OTHER_TASKS_WITHOUT_THE_PACKAGE = """
import sys

sys.modules["prithvi_hf"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification, pipeline

source, folder, _ = sys.argv[1:]
chip = load_file(f"{folder}/chip.safetensors")["chip"]
values = pipeline("geospatial-regression", model=f"{source}-regression", trust_remote_code=True)(chip.numpy())
labels = pipeline("geospatial-classification", model=f"{source}-classes", trust_remote_code=True)(chip.numpy())
model = AutoModel.from_pretrained(f"{source}-regression", trust_remote_code=True)
assert type(model).__name__ == "PrithviForPixelRegression", type(model)
model = AutoModelForImageClassification.from_pretrained(f"{source}-classes", trust_remote_code=True)
assert type(model).__name__ == "PrithviForImageClassification", type(model)
assert values.unit == "Mg/ha" and [one["label"] for one in labels] == ["water"], (values, labels)
results = {"values": torch.tensor(values.values), "score": torch.tensor(labels[0]["score"])}
save_file(results, f"{folder}/results.safetensors")
"""


ANY_MODEL_WITHOUT_THE_PACKAGE = """
import sys

sys.modules["prithvi_hf"] = None
import torch
import transformers
from safetensors.torch import load_file, save_file

source, folder, names = sys.argv[1:]
results = {}
for name in names.split():
    auto_class = getattr(transformers, name.split(".")[0])
    model = auto_class.from_pretrained(f"{source}-{name.lower()}", trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        outputs = model.eval()(**load_file(f"{folder}/{name}.safetensors"))
    found = outputs["feature_maps"][0] if "feature_maps" in outputs else outputs["logits"]
    results[name] = found.contiguous()
save_file(results, f"{folder}/results.safetensors")
"""


def run_without_the_package(source, folder, hub, target="", script=WITHOUT_THE_PACKAGE):
    command = [sys.executable, "-I", "-c", script, str(source), str(folder), target]
    run = subprocess.run(command, cwd=folder, env=hub.env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return load_file(folder / "results.safetensors")


def expected_results(model, processor, chip):
    pixel_values = processor(chip, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values).logits
        tokens = model.prithvi(pixel_values).last_hidden_state
    mask = GeospatialSegmentationPipeline(model=model, image_processor=processor)(chip.numpy()).mask
    return {"pixel_values": pixel_values, "logits": logits, "tokens": tokens, "mask": torch.as_tensor(mask)}


@pytest.mark.slow
def test_a_process_without_the_package_loads_pushes_and_saves(here, output_folder, model, processor, chip, tmp_path):
    push_folder_to_hub(output_folder, REPO)
    save_file({"chip": chip}, tmp_path / "chip.safetensors")
    found = run_without_the_package(REPO, tmp_path, here, target=f"{USER}/second-hand")
    expected = expected_results(model, processor, chip)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)

    # what it pushed is as complete as what it got, and the code is the same
    pushed, original = here.files(f"{USER}/second-hand"), here.files(REPO)
    names = {"config.json", "model.safetensors", "preprocessor_config.json"} | CODE
    assert names <= set(pushed)
    for name in names - {"model.safetensors"}:
        assert pushed[name] == original[name], name
    assert (
        load_file(output_folder / "model.safetensors").keys() == load_file(tmp_path / "saved/model.safetensors").keys()
    )

    # what it saved is a folder that a process without the package can load, again with its consent
    assert {path.name for path in (tmp_path / "saved").iterdir()} >= CODE
    found = run_without_the_package(tmp_path / "saved", tmp_path, here)
    torch.testing.assert_close(found["logits"], expected["logits"], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_process_without_the_package_predicts_values_and_classes_of_images(here, processor, chip, tmp_path):
    regressor, classifier = tiny_regressor(), tiny_model(kind=PrithviForImageClassification)
    with torch.no_grad():
        classifier.classifier.bias[1] += 10  # above the threshold, which no other is
    classifier.classifier.bias.data[[0, 2]] -= 10
    classifier.config.problem_type = "multi_label_classification"
    for one, name in ((regressor, "regression"), (classifier, "classes")):
        one.push_to_hub(f"{REPO}-{name}")
        processor.push_to_hub(f"{REPO}-{name}")
    save_file({"chip": chip}, tmp_path / "chip.safetensors")
    found = run_without_the_package(REPO, tmp_path, here, script=OTHER_TASKS_WITHOUT_THE_PACKAGE)
    values = GeospatialRegressionPipeline(model=regressor, image_processor=processor)(chip.numpy()).values
    ((label),) = GeospatialClassificationPipeline(model=classifier, image_processor=processor)(chip.numpy())
    torch.testing.assert_close(found["values"], torch.from_numpy(values), rtol=1e-6, atol=1e-4)
    assert found["score"].item() == pytest.approx(label["score"], abs=1e-6)


@pytest.mark.slow
def test_a_process_without_the_package_loads_every_model(here, tmp_path):
    """By the Auto class that each name begins with."""
    sizes = {"image_size": 32, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    sizes |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    pyramid = {"num_frames": 1, "decode_head": "upernet", "head_hidden_size": 8, **sizes}
    encoded = {"num_frames": 1, "coords_encoding": ["time", "location"], **sizes}
    models = {
        "AutoBackbone": PrithviBackbone(PrithviConfig(out_indices=[1, 3], **encoded)),
        "AutoModelForPreTraining": PrithviForPreTraining(PrithviConfig(**encoded)),
        "AutoModelForSemanticSegmentation": PrithviForSemanticSegmentation(PrithviConfig(**pyramid)),
        "AutoModelForSemanticSegmentation.baseline": PrithviForSemanticSegmentation(
            PrithviConfig(num_frames=1, image_size=32, architecture="unet")
        ),
    }
    expected = {}
    for name, model in models.items():
        model.push_to_hub(f"{REPO}-{name.lower()}")
        inputs = {"pixel_values": torch.randn(2, 6, 1, 32, 64)}
        if model.config.coords_encoding:
            inputs |= {"temporal_coords": torch.tensor([[[2020.0, 100]]] * 2), "location_coords": torch.ones(2, 2)}
        if isinstance(model, PrithviForPreTraining):
            inputs["noise"] = torch.rand(2, 8)
        save_file(inputs, tmp_path / f"{name}.safetensors")
        with torch.no_grad():
            outputs = model.eval()(**inputs)
        expected[name] = outputs["feature_maps"][0] if "feature_maps" in outputs else outputs["logits"]
    found = run_without_the_package(REPO, tmp_path, here, " ".join(models), ANY_MODEL_WITHOUT_THE_PACKAGE)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
