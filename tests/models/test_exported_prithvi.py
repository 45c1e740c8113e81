# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Exported folders as models: what they give, in which precision, and what is refused."""

import copy
import json
import resource
import shutil

import numpy as np
import pytest
import torch
from transformers import pipeline

import prithvi_hf
from prithvi_hf.disk import is_disk_full
from prithvi_hf.models.prithvi import inference_dtype_prithvi
from prithvi_hf.models.prithvi.exported_prithvi import PrithviExportedModel
from prithvi_hf.scenes.predict_scene import describe_model
from tests.export_factory import FORMATS, export_tiny
from tests.scene_factory import scene_pixels, tiny_processor


SIZES = ((2, 32, 32), (1, 37, 50), (3, 16, 41), (1, 7, 5))


def load(folder, **options):
    return PrithviExportedModel.from_pretrained(folder, trust_remote_code=True, **options)


def images(batch, height, width):
    return torch.randn(batch, 6, 1, height, width, generator=torch.Generator().manual_seed(height))


@pytest.fixture(params=FORMATS)
def exported(request, tmp_path_factory):
    return export_tiny(tmp_path_factory, request.param)


@pytest.fixture
def openvino_folder(tmp_path_factory, tmp_path):
    folder, model = export_tiny(tmp_path_factory, "openvino")
    return shutil.copytree(folder, tmp_path / "copy"), model


@pytest.mark.slow
def test_a_graph_gives_the_models_logits_for_any_batch_and_size(exported):
    folder, model = exported
    loaded = load(folder)
    for size in (*SIZES, SIZES[0]):  # the first size has a graph of its own
        pixel_values = images(*size)
        with torch.inference_mode():
            expected, found = model(pixel_values).logits, loaded(pixel_values).logits
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), size


def test_auto_classes_and_pipelines_take_an_exported_folder(openvino_folder):
    folder, _ = openvino_folder
    pipe = pipeline("geospatial-segmentation", model=str(folder))
    assert isinstance(pipe.model, PrithviExportedModel)
    pixels = scene_pixels(40, 50)
    own = prithvi_hf.GeospatialSegmentationPipeline(openvino_folder[1], image_processor=tiny_processor())
    assert np.array_equal(pipe(pixels).mask, own(pixels).mask)


def test_bfloat16_is_a_copys_own_and_float32_stays(openvino_folder):
    folder, model = openvino_folder
    full = load(folder)
    half = copy.deepcopy(full).to(torch.bfloat16)
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    pixel_values = images(2, 40, 48)
    with torch.inference_mode():
        expected = model(pixel_values).logits
    exact, rounded = (one(pixel_values).logits for one in (full, half))
    assert (exact - expected).abs().max() < 1e-5 * expected.abs().max()
    assert 0 < (rounded - expected).abs().max() < 0.03 * expected.abs().max()
    assert rounded.dtype == torch.float32


def test_the_patch_embedding_is_not_a_convolution(openvino_folder):
    """Runtimes compute that of 1x16x16 wrongly in bfloat16, which OpenVINO chooses by itself on some processors."""
    [component] = load(openvino_folder[0]).components.values()
    convolutions = [one for one in component.program.get_ops() if one.get_type_name() == "Convolution"]
    assert convolutions
    assert all(one.input(0).get_partial_shape().rank.get_length() == 4 for one in convolutions)


def test_another_graph_or_precision_is_another_model_to_a_resumed_run(openvino_folder):
    folder, _ = openvino_folder
    processor, first = tiny_processor(), load(folder)
    digest = describe_model(first, processor)["model"]
    assert describe_model(load(folder), processor)["model"] == digest
    assert describe_model(copy.deepcopy(first).to(torch.bfloat16), processor)["model"] != digest
    weights = folder / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    assert describe_model(load(folder), processor)["model"] != digest


def test_a_saved_model_is_the_same_again(openvino_folder, tmp_path):
    first = load(openvino_folder[0])
    first.save_pretrained(tmp_path / "again")
    pixel_values = images(1, 32, 32)
    assert torch.equal(first(pixel_values).logits, load(tmp_path / "again")(pixel_values).logits)


def test_a_full_disk_is_told_by_each_writer(exported, tmp_path):
    """That of `torch.export` would end the process."""
    loaded, (soft, hard) = load(exported[0]), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises((OSError, RuntimeError)) as caught:
            loaded.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_disk_full(caught.value)


def test_what_a_runtime_cannot_do_is_refused(tmp_path_factory):
    folder, _ = export_tiny(tmp_path_factory, "torch_export")
    with pytest.raises(ValueError, match=r"pickle of torch.export.*--trust_remote_code"):
        PrithviExportedModel.from_pretrained(folder)
    with pytest.raises(
        ValueError, match="Expected dtype float32 for a model exported to torch_export, found bfloat16"
    ):
        load(folder, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"Expected device cpu.*found cuda"):
        load(folder).to("cuda")


def test_weights_that_are_cut_off_are_said_to_be(tmp_path_factory, tmp_path):
    folder = shutil.copytree(export_tiny(tmp_path_factory, "onnx")[0], tmp_path / "copy")
    weights = folder / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"Expected a whole graph in .*model\.onnx"):
        load(folder)(images(1, 32, 32))


def test_a_folder_that_is_foreign_or_damaged_is_refused(openvino_folder):
    folder, _ = openvino_folder
    manifest = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**manifest, "prithvi_hf": None}))
    with pytest.raises(ValueError, match="what `prithvi-hf export` wrote"):
        load(folder)
    (folder / "export.json").write_text("{")
    with pytest.raises(ValueError, match="what `prithvi-hf export` wrote"):
        load(folder)
    (folder / "export.json").write_text(json.dumps(manifest))
    (folder / "openvino_model.xml").write_text("<net")
    with pytest.raises(ValueError, match="Expected a whole graph"):
        load(folder)
    (folder / "openvino_model.bin").unlink()
    with pytest.raises(ValueError, match=r"Expected a whole graph in .*openvino_model\.bin"):
        load(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": 48},
        {"num_frames": 3},
        {"coords_encoding": ["time"]},
        {"architectures": ["PrithviForPixelRegression"]},
    ],
    ids=str,
)
def test_the_configuration_of_another_model_is_refused(openvino_folder, fields):
    folder, _ = openvino_folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(ValueError, match=r"config\.json is of another model"):
        load(folder)


def test_a_graph_of_other_classes_is_refused(openvino_folder):
    folder, _ = openvino_folder
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {"0": "land", "1": "water"}, "label2id": {"land": 0, "water": 1}}
    (folder / "config.json").write_text(json.dumps({**config, **labels}))
    with pytest.raises(ValueError, match=r"Expected a graph of 2 class.*found one of 3"):
        load(folder)(images(1, 32, 32))


def test_a_manifest_imports_nothing(openvino_folder, tmp_path, monkeypatch):
    """The specifications of torch name modules, and what to call for an output that is not there."""
    folder, model = openvino_folder
    (tmp_path / "harmful.py").write_text("from pathlib import Path\n\nPath(__file__).with_name('was_run').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    manifest = json.loads((folder / "export.json").read_text())
    leaf = {"type": None, "context": None, "children_spec": []}
    context = {"default_factory_module": "harmful", "default_factory_name": "Path", "dict_context": ["other"]}
    spec = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": [leaf]}
    [component] = manifest["components"].values()
    component["metadata"] |= {"out_spec": json.dumps([1, spec]), "in_spec": json.dumps([1, spec])}
    (folder / "export.json").write_text(json.dumps(manifest))
    pixel_values = images(1, 32, 32)
    assert load(folder)(pixel_values).logits.shape == model(pixel_values).logits.shape
    assert not (tmp_path / "was_run").exists()


def test_a_missing_runtime_names_its_extra(openvino_folder, monkeypatch):
    monkeypatch.setattr("prithvi_hf.models.prithvi.exported_prithvi.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"prithvi_hf\[openvino\]"):
        load(openvino_folder[0])


def test_other_frames_are_refused(openvino_folder):
    with pytest.raises(ValueError, match=r"Expected 1 frame\(s\) in dimension 2, found 2"):
        load(openvino_folder[0])(torch.zeros(1, 6, 2, 32, 32))


@pytest.mark.parametrize("export_format", ["openvino", "onnx"])
def test_auto_chooses_among_the_precisions_of_the_runtime(tmp_path_factory, monkeypatch, export_format):
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: "units of a test")
    model = load(export_tiny(tmp_path_factory, export_format)[0])
    sample = {"pixel_values": images(1, 32, 32)}, torch.ones(1, 32, 32, dtype=torch.bool)
    choice = inference_dtype_prithvi.resolve_dtype(model, "auto", [sample])
    if export_format == "openvino":
        assert choice.agreement > 0.9
    else:
        assert choice == ("float32", "the runtime that computes the graph has no bfloat16", None)
    assert model.dtype == torch.float32
