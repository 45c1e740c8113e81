# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The pipeline "geospatial-segmentation"."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate
from transformers import pipeline
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

import prithvi_hf
from prithvi_hf import (
    PrithviForImageClassification,
    PrithviForSemanticSegmentation,
    PrithviTrainer,
    PrithviTrainingArguments,
)
from prithvi_hf.models.prithvi import inference_dtype_prithvi
from prithvi_hf.models.prithvi.pipeline_prithvi import (
    GeospatialClassificationPipeline,
    GeospatialRegressionPipeline,
    GeospatialSegmentationPipeline,
    register_pipeline,
)
from prithvi_hf.models.prithvi.remote_code_prithvi import source_files
from prithvi_hf.rasters.radiometry import RadiometryWarning
from prithvi_hf.scenes import predict_scene
from tests.granule_factory import LANDSAT_8, write_bands
from tests.scene_factory import (
    CRS_UTM,
    LABELS,
    TRANSFORM,
    WINDOW,
    scene_pixels,
    tiny_model,
    tiny_processor,
    write_scene,
)


@pytest.fixture(scope="module")
def pipe():
    return GeospatialSegmentationPipeline(model=tiny_model(), image_processor=tiny_processor(), device="cpu")


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif")


def count_windows(pipe, monkeypatch):
    """Record the batch size of every forward pass."""
    sizes, forward = [], pipe.model.forward

    def counted(pixel_values, **kwargs):
        sizes.append(len(pixel_values))
        return forward(pixel_values, **kwargs)

    monkeypatch.setattr(pipe.model, "forward", counted)
    return sizes


@pytest.mark.parametrize("stream", [False, True])
def test_scale_and_offset_tags_are_applied_once(pipe, tmp_path, stream):
    """Reflectance x 10,000, which the model takes, stored with other numbers and tags that say so."""
    pixels = scene_pixels()
    plain = write_scene(tmp_path / "plain.tif", pixels)
    tagged = write_scene(tmp_path / "tagged.tif", (2 * (pixels + 1000)).astype(np.int16))
    with rasterio.open(tagged, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.00005,) * 6, (-0.1,) * 6
    options = {"output": str(tmp_path / "map.tif")} if stream else {}
    with pytest.warns(RadiometryWarning):
        found = pipe(str(tagged), **options).mask
    np.testing.assert_array_equal(found, pipe(str(plain)).mask)


def test_importing_the_package_registers_the_task():
    assert "geospatial-segmentation" in PIPELINE_REGISTRY.get_supported_tasks()
    assert prithvi_hf.GeospatialSegmentationPipeline is GeospatialSegmentationPipeline


def test_registering_again_changes_nothing(caplog):
    before = PIPELINE_REGISTRY.supported_tasks["geospatial-segmentation"]
    register_pipeline()
    assert PIPELINE_REGISTRY.supported_tasks["geospatial-segmentation"] is before
    assert not caplog.records


def test_pipeline_function_loads_a_folder(model_folder, scene, tmp_path):
    pytest.importorskip("PIL")
    pipe = pipeline("geospatial-segmentation", model=str(model_folder))  # device=None
    result = pipe(str(scene))
    expected = predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "map.tif", show_progress=False)
    assert isinstance(pipe, GeospatialSegmentationPipeline)
    np.testing.assert_array_equal(result.mask, expected.mask)
    assert (result.crs, tuple(result.transform)) == (CRS_UTM, tuple(TRANSFORM))
    assert result.probabilities is None


def test_result_writes_the_same_file_as_predict_scene(pipe, scene, tmp_path):
    pipe(scene).to_geotiff(tmp_path / "a.tif")
    predict_scene(pipe.model, pipe.image_processor, scene, tmp_path / "b.tif", show_progress=False)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert cog_validate(tmp_path / "a.tif", strict=True)[0]


@pytest.mark.parametrize("form", ["path", "bytes", "array", "tensor", "one frame", "time axis"])
def test_forms_of_one_scene(pipe, scene, form):
    pixels = scene_pixels()
    inputs = {
        "path": scene,
        "bytes": scene.read_bytes(),
        "array": pixels,
        "tensor": torch.from_numpy(pixels),
        "one frame": (pixels,),
        "time axis": pixels[:, None],
    }[form]
    result = pipe(inputs)
    np.testing.assert_array_equal(result.mask, pipe(str(scene)).mask)
    assert result.mask.dtype == np.uint8
    assert (result.crs == CRS_UTM) == (form in ("path", "bytes"))


def test_list_is_several_scenes_of_any_size(pipe, tmp_path):
    sizes = [(40, 40), (33, 50), (20, 20)]
    scenes = [write_scene(tmp_path / f"{h}.tif", scene_pixels(h, w)) for h, w in sizes]
    results = pipe([str(scenes[0]), scenes[1], scene_pixels(20, 20)])
    assert [result.mask.shape for result in results] == sizes
    np.testing.assert_array_equal(results[1].mask, pipe(scenes[1]).mask)


def test_tuple_or_inner_list_is_the_frames_of_one_scene(tmp_path):
    pipe = GeospatialSegmentationPipeline(model=tiny_model(2), image_processor=tiny_processor(2), device="cpu")
    frames = [scene_pixels(40, 40, seed=seed) for seed in range(2)]
    paths = [str(write_scene(tmp_path / f"{index}.tif", pixels)) for index, pixels in enumerate(frames)]
    expected = pipe(np.stack(frames, axis=1)).mask
    for one in (tuple(paths), tuple(frames), [paths], [tuple(frames)]):
        result = pipe(one)
        result = result[0] if isinstance(one, list) else result
        np.testing.assert_array_equal(result.mask, expected)
    assert (pipe(tuple(paths[::-1])).mask != expected).any()
    assert len(pipe([tuple(paths), paths])) == 2


def test_generator_gives_an_iterator(pipe):
    results = pipe(scene_pixels(16, width) for width in (20, 24))
    assert [result.mask.shape[1] for result in results] == [20, 24]


def test_batch_size_counts_windows(pipe, monkeypatch, set_threads):
    set_threads(1)  # more would each take a part of a batch
    sizes = count_windows(pipe, monkeypatch)
    pixels = scene_pixels(WINDOW, 3 * WINDOW)  # five windows
    pipe(pixels, batch_size=2)
    assert sizes == [2, 2, 1]
    sizes.clear()
    pipe([pixels, pixels[..., :WINDOW]], batch_size=4)
    assert sizes == [4, 1, 1]


def test_options_are_taken_at_construction_and_in_the_call(monkeypatch, set_threads):
    set_threads(1)
    options = {"batch_size": 2, "overlap": 0.0, "probabilities": True}
    pipe = GeospatialSegmentationPipeline(
        model=tiny_model(), image_processor=tiny_processor(), device="cpu", **options
    )
    sizes = count_windows(pipe, monkeypatch)
    pixels = scene_pixels(WINDOW, 3 * WINDOW)
    assert pipe(pixels).probabilities.shape == (3, WINDOW, 3 * WINDOW)
    assert sizes == [2, 1]
    sizes.clear()
    assert pipe(pixels, window=(WINDOW, 2 * WINDOW), probabilities=False).probabilities is None
    assert sizes == [2]


def test_temperature_of_the_model_softens_probabilities_in_memory_and_in_files(tmp_path, scene):
    model = tiny_model(temperature=3.0)
    pipe = GeospatialSegmentationPipeline(model=model, image_processor=tiny_processor(), device="cpu")
    warm = pipe(scene, probabilities=True)
    written = pipe(scene, output=str(tmp_path / "map.tif"), probabilities=True, confidence=True)
    np.testing.assert_allclose(written.probabilities, warm.probabilities, atol=1e-5)
    with rasterio.open(tmp_path / "map_confidence.tif") as dataset:
        np.testing.assert_allclose(dataset.read(1), warm.probabilities.max(0), atol=1e-5)
    model.config.temperature = 1.0
    cold = pipe(scene, probabilities=True)
    np.testing.assert_array_equal(warm.mask, cold.mask)
    powers = cold.probabilities ** (1 / 3)
    np.testing.assert_allclose(warm.probabilities, powers / powers.sum(0), atol=1e-5)


def test_probabilities_are_written(pipe, scene, tmp_path):
    result = pipe(scene, probabilities=True)
    result.probabilities_to_geotiff(tmp_path / "p.tif", dtype="uint8")
    with rasterio.open(tmp_path / "p.tif") as dataset:
        np.testing.assert_allclose(dataset.read() / 254, result.probabilities, atol=0.5 / 254 + 1e-6)
        assert dataset.descriptions == ("no water", "water", "cloud")


def test_nodata_becomes_255(pipe, tmp_path):
    pixels = scene_pixels()
    pixels[:, :, :11] = -9999
    result = pipe(write_scene(tmp_path / "scene.tif", pixels), probabilities=True)
    np.testing.assert_array_equal(result.mask == 255, (pixels == -9999).all(0))
    assert np.isnan(result.probabilities[:, :, :11]).all()


def test_bands_of_an_array_are_found_by_name(pipe):
    pixels = scene_pixels()
    names = list(pipe.image_processor.bands)
    result = pipe(pixels[::-1].copy(), band_names=names[::-1])
    np.testing.assert_array_equal(result.mask, pipe(pixels).mask)


def test_training_mode_is_kept(scene):
    pipe = GeospatialSegmentationPipeline(model=tiny_model().train(), image_processor=tiny_processor(), device="cpu")
    pipe(scene)
    assert pipe.model.training
    assert pipe.model.decode_head.training


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"overlap": 1}, ValueError, "0 <= overlap < 1"),
        ({"window": 0}, ValueError, "whole and positive"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"stride": 3}, TypeError, r"Unknown option\(s\) \['stride'\]"),
    ],
)
def test_bad_options(pipe, options, error, message):
    with pytest.raises(error, match=message):
        pipe(scene_pixels(8, 8), **options)


def test_folders_and_files_of_one_band_each_are_scenes_in_memory_as_in_files(tmp_path):
    processor = tiny_processor()
    pipe = GeospatialSegmentationPipeline(model=tiny_model(), image_processor=processor, device="cpu")
    files = write_bands(tmp_path / "june", {band: f"{code}.TIF" for band, code in LANDSAT_8.items()}, nodata=0)
    streamed = predict_scene(pipe.model, processor, tmp_path / "june", tmp_path / "map.tif", show_progress=False)
    for result in (pipe(tmp_path / "june"), *pipe([str(tmp_path / "june")]), pipe((files,))):
        np.testing.assert_array_equal(result.mask, streamed.mask)
        assert (result.mask == 255).sum() == 24
        assert result.crs == streamed.crs
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found none"):
        pipe(tmp_path / "empty")


@pytest.mark.parametrize("inputs", [[], ()])
def test_no_scene_is_an_error(pipe, inputs):
    with pytest.raises(ValueError, match="at least one scene"):
        pipe(inputs)


def test_wrong_number_of_bands_and_frames(pipe):
    with pytest.raises(ValueError, match="5 bands"):
        pipe(scene_pixels(bands=5))
    with pytest.raises(ValueError, match="frame"):
        pipe((scene_pixels(), scene_pixels()))


def test_real_chip(flood_chips, pipe):
    (chip,) = flood_chips.rglob("Bolivia_103757_S2Hand.tif")
    result = pipe(chip, overlap=0, window=128)
    with rasterio.open(chip) as source:
        assert (result.crs, tuple(result.transform)) == (source.crs, tuple(source.transform))
        np.testing.assert_array_equal(result.mask == 255, (source.read([2, 3, 4, 9, 12, 13]) == 0).all(axis=0))


def test_output_streams_the_map_to_a_file(pipe, scene, tmp_path):
    options = {"overlap": 0.25, "batch_size": 3}
    result = pipe(str(scene), output=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", **options)
    in_memory = pipe(str(scene), probabilities=True, **options)
    np.testing.assert_array_equal(result.mask, in_memory.mask)
    np.testing.assert_allclose(result.probabilities, in_memory.probabilities, atol=1e-6)
    assert (result.crs, tuple(result.transform)) == (CRS_UTM, tuple(TRANSFORM))
    assert tuple(result.report["options"]["window"]) == (WINDOW, WINDOW)
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]


def test_output_of_several_scenes_and_options_of_the_pipeline(scene, tmp_path):
    pipe = GeospatialSegmentationPipeline(
        model=tiny_model(), image_processor=tiny_processor(), device="cpu", overlap=0.0, batch_size=2
    )
    results = pipe([str(scene), scene_pixels(20, 24)[:, None]], output=[tmp_path / "a.tif", tmp_path / "b.tif"])
    np.testing.assert_array_equal(results[0].mask, pipe(str(scene)).mask)
    assert results[1].shape == (20, 24)
    assert results[0].report["options"]["batch_size"] == 2
    for inputs, options, error, message in (
        ([scene, scene], {}, ValueError, "one output for each of 2 scenes, found 1"),
        (scene, {"num_workers": 2}, TypeError, "num_workers is an option of maps in memory"),
        (scene, {"overlap": 1}, ValueError, "0 <= overlap < 1"),
    ):
        with pytest.raises(error, match=message):
            pipe(inputs, output=tmp_path / "c.tif", **options)
    assert not (tmp_path / "c.tif").exists()


def test_inference_dtype_is_chosen_for_each_scene_in_memory_and_to_a_file(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: "units of a test")
    pipe = GeospatialSegmentationPipeline(
        model=tiny_model(), image_processor=tiny_processor(), device="cpu", inference_dtype="auto"
    )
    found = pipe(scene)
    assert pipe.dtype_choice.chosen == "bfloat16"
    assert pipe.model.dtype == torch.float32
    half = pipe(scene, inference_dtype="bfloat16")
    np.testing.assert_array_equal(found.mask, half.mask)
    assert pipe.dtype_choice.reason == "as asked for"
    assert pipe(scene, output=tmp_path / "map.tif").report["dtype"]["chosen"] == "bfloat16"
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: None)
    assert pipe(scene) is not None
    assert pipe.dtype_choice.chosen == "float32"
    with pytest.raises(ValueError, match="inference_dtype: expected one of float32, bfloat16, float16, auto, or None"):
        pipe(scene, inference_dtype="int8")


def test_auto_of_transformers_is_the_dtype_of_the_weights(model_folder):
    for dtype, wanted in (("auto", torch.float32), (torch.bfloat16, torch.bfloat16)):
        assert pipeline("geospatial-segmentation", model=str(model_folder), dtype=dtype).model.dtype == wanted


@pytest.mark.gpu
@pytest.mark.parametrize("device", [None, 0, "cuda"])
def test_gpu_gives_the_map_of_the_cpu(scene, pipe, device):
    on_gpu = GeospatialSegmentationPipeline(model=tiny_model(), image_processor=tiny_processor(), device=device)
    result = on_gpu(scene)
    assert on_gpu.model.device.type == "cuda"
    assert (result.mask == pipe(scene).mask).mean() > 0.999


REMOTE = """
import importlib, sys
sys.modules["prithvi_hf"] = None  # importing it fails, as where it is not installed
sys.path.insert(0, sys.argv[1])
import numpy as np
module = importlib.import_module("remote.pipeline_prithvi")
modeling = importlib.import_module("remote.modeling_prithvi")
processing = importlib.import_module("remote.image_processing_prithvi")
pipe = module.GeospatialSegmentationPipeline(
    model=modeling.PrithviForSemanticSegmentation.from_pretrained(sys.argv[2]),
    image_processor=processing.PrithviImageProcessor.from_pretrained(sys.argv[2]),
    device="cpu",
)
result = pipe(np.load(sys.argv[3]))
np.save(sys.argv[4], result.mask)
actions = (
    lambda: pipe("scene.tif"),
    lambda: result.to_geotiff("map.tif"),
    lambda: result.to_png("map.png"),
    lambda: pipe(np.load(sys.argv[3]), output="map.tif"),
)
for action in actions:
    try:
        action()
    except ImportError as error:
        print(error)
"""


@pytest.mark.slow
def test_arrays_are_mapped_where_the_package_is_not_installed(tmp_path, model_folder, pipe):
    siblings = {file.name: file.read_text() for file in source_files()}
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "__init__.py").touch()
    for name, text in siblings.items():
        (tmp_path / "remote" / name).write_text(text)
    np.save(tmp_path / "scene.npy", scene_pixels())
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, tmp_path, model_folder, tmp_path / "scene.npy", tmp_path / "mask.npy"],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), pipe(scene_pixels()).mask)
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 4
    assert all("needs the prithvi_hf package" in line for line in lines)
    assert "pass arrays of shape" in lines[0]
    assert not list(tmp_path.glob("map.*"))


def reversed_bands(processor):
    for name in ("bands", "image_mean", "image_std"):
        setattr(processor, name, getattr(processor, name)[::-1])


CONTRADICTIONS = {
    "the order of bands": (reversed_bands, "bands: expected those of the model, in its order, BLUE, GREEN"),
    "one other band": (lambda processor: processor.bands.__setitem__(3, "NIR_BROAD"), "RED, NIR_BROAD, SWIR_1"),
    "fewer bands": (
        lambda processor: [vars(processor).update(bands=["RED"], image_mean=[1.0], image_std=[1.0])],
        "of RED",
    ),
    "more frames": (
        lambda processor: setattr(processor, "num_frames", 3),
        "num_frames: expected 1, as the model takes",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_an_image_processor_that_contradicts_the_model_is_refused(tmp_path, scene, what):
    change, message = CONTRADICTIONS[what]
    processor = tiny_processor()
    change(processor)
    pipe = GeospatialSegmentationPipeline(model=tiny_model(), image_processor=processor, device="cpu")
    for use in (
        lambda: pipe(str(scene)),
        lambda: pipe(str(scene), output=tmp_path / "map.tif"),
        lambda: predict_scene(tiny_model(), processor, scene, tmp_path / "map.tif"),
        lambda: PrithviTrainer(tiny_model(), PrithviTrainingArguments(tmp_path / "run"), processing_class=processor),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    "bands",
    [
        ["B02", "B03", "B04", "B8A", "B11", "B12"],
        ["blue", "green", "red", "nir_narrow", "swir_1", "swir_2"],
        ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR1", "SWIR2"],
    ],
)
def test_other_names_of_the_models_bands_are_no_contradiction(pipe, bands):
    other = GeospatialSegmentationPipeline(model=pipe.model, image_processor=tiny_processor(bands=bands), device="cpu")
    np.testing.assert_array_equal(other(scene_pixels()).mask, pipe(scene_pixels()).mask)


def test_a_data_parallel_model_makes_the_same_map(pipe, tmp_path, scene):
    wrapped, processor = torch.nn.DataParallel(tiny_model()), tiny_processor()
    other = pipeline("geospatial-segmentation", model=wrapped, image_processor=processor, device="cpu")
    expected = pipe(str(scene)).mask
    np.testing.assert_array_equal(other(str(scene)).mask, expected)
    found = predict_scene(wrapped, processor, scene, tmp_path / "map.tif", show_progress=False)
    np.testing.assert_array_equal(found.mask, expected)


def test_a_model_that_cannot_make_maps_is_refused_before_anything_is_read(tmp_path, model_folder):
    model, processor = tiny_model(), tiny_processor()
    model.prithvi.save_pretrained(tmp_path / "backbone")
    processor.save_pretrained(tmp_path / "backbone")
    offloaded = PrithviForSemanticSegmentation.from_pretrained(
        model_folder, device_map={"": "disk"}, offload_folder=tmp_path / "off"
    )
    untrained = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "backbone", id2label=model.config.id2label)
    for given, message in (
        (model.prithvi, "found a PrithviModel.*finetune --model"),
        (untrained, f"found the backbone {tmp_path}/backbone: .*finetune --model {tmp_path}/backbone"),
        (offloaded, "weights are in memory.*offload_folder"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_scene(given, processor, tmp_path / "none.tif", tmp_path / "map.tif")
        with pytest.raises(ValueError, match=message):
            pipeline("geospatial-segmentation", model=given, image_processor=processor)
    with pytest.raises(ValueError, match="found the backbone"):
        pipeline("geospatial-segmentation", model=str(tmp_path / "backbone"))


@pytest.mark.parametrize("how", ["trained", "loaded", "edited"])
def test_a_backbone_whose_heads_were_given_weights_makes_maps(tmp_path, how):
    tiny_model().prithvi.save_pretrained(tmp_path)
    options = {name: getattr(tiny_model().config, name) for name in ("neck_hidden_size", "head_hidden_size")}
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path, use_auxiliary_head=False, num_labels=3, **options)
    if how == "trained":
        model(torch.ones(1, 6, 32, 32), labels=torch.zeros(1, 32, 32, dtype=torch.long)).loss.backward()
        torch.optim.AdamW(model.parameters()).step()
    elif how == "loaded":
        model.load_state_dict(tiny_model().state_dict())
    else:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
    pipe = GeospatialSegmentationPipeline(model=model, image_processor=tiny_processor(), device="cpu")
    assert pipe(scene_pixels(32, 32)).mask.shape == (32, 32)


def test_every_backend_of_auto_classes_is_there_so_that_none_is_missed():
    """Transformers says on every load which backend it wanted and did not find."""
    found = IMAGE_PROCESSOR_MAPPING[prithvi_hf.PrithviConfig]
    assert found == {"torchvision": prithvi_hf.PrithviImageProcessor, "pil": prithvi_hf.PrithviImageProcessor}


# ---------------------------------------------------------------- classes of whole images


def make_classifier(**options):
    return tiny_model(kind=PrithviForImageClassification, **options)


def test_an_image_of_one_class_gets_probabilities_that_add_up_to_one(tmp_path):
    make_classifier().save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    pipe = pipeline("geospatial-classification", model=str(tmp_path / "model"), device="cpu")
    path = write_scene(tmp_path / "chip.tif", scene_pixels(40, 23))
    found = pipe(str(path))
    inputs = tiny_processor()(scene_pixels(40, 23), return_tensors="pt")
    with torch.no_grad():
        expected = pipe.model(**inputs).logits[0].softmax(dim=0)
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        {LABELS[index]: score for index, score in enumerate(expected.tolist())}, abs=1e-6
    )
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert pipe(str(path), top_k=1) == found[:1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_images_of_a_list_are_classified_in_batches_and_those_without_data_say_so(batch_size):
    pipe = GeospatialClassificationPipeline(
        model=make_classifier(), image_processor=tiny_processor(nodata_value=-9999), device="cpu"
    )
    images = [scene_pixels(32, 32, seed=seed) for seed in range(5)]
    images[3][:] = -9999
    found = pipe(images, batch_size=batch_size)
    assert found[3] == [{"label": "no data", "score": 1.0}]
    for image, one in zip(images[:3], found[:3], strict=True):
        (alone,) = pipe([image])
        assert [entry["label"] for entry in one] == [entry["label"] for entry in alone]
        assert one[0]["score"] == pytest.approx(alone[0]["score"], abs=1e-5)


def test_an_image_of_several_classes_gets_all_above_the_threshold():
    model = make_classifier(problem_type="multi_label_classification")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([2.0, -1.0, 0.5]))
    pipe = GeospatialClassificationPipeline(model=model, image_processor=tiny_processor(), device="cpu")
    assert [one["label"] for one in pipe(scene_pixels(32, 32))] == ["no water", "cloud"]
    found = pipe(scene_pixels(32, 32), threshold=0.2)
    assert [one["score"] for one in found] == pytest.approx([0.8808, 0.6225, 0.2689], abs=1e-4)
    assert pipe(scene_pixels(32, 32), threshold=0.9) == []
    model.config.temperature = 2.0
    assert [one["score"] for one in pipe(scene_pixels(32, 32))] == pytest.approx([0.7311, 0.5622], abs=1e-4)
    model.config.problem_type = "single_label_classification"
    assert pipe(scene_pixels(32, 32))[0]["score"] == pytest.approx(0.5898, abs=1e-4)


def test_a_regression_of_whole_images_gives_its_value():
    model = make_classifier(problem_type="regression", target_mean=50.0, target_std=10.0)
    pipe = GeospatialClassificationPipeline(model=model, image_processor=tiny_processor(), device="cpu")
    found = pipe(scene_pixels(32, 32), top_k=None)
    assert len(found) == 3
    assert all(0 < one["score"] < 100 for one in found)


def test_a_model_in_training_mode_classifies_without_dropout_and_stays_in_it():
    model = make_classifier(classifier_dropout=0.9)
    pipe = GeospatialClassificationPipeline(model=model, image_processor=tiny_processor(), device="cpu")
    expected = pipe(scene_pixels(32, 32))
    model.train()
    assert pipe(scene_pixels(32, 32)) == expected
    assert model.training


def test_dates_of_an_image_are_a_tuple():
    pipe = GeospatialClassificationPipeline(
        model=make_classifier(num_frames=2), image_processor=tiny_processor(2), device="cpu"
    )
    dates = (scene_pixels(32, 32), scene_pixels(32, 32, seed=1))
    assert pipe(dates) == pipe([np.stack(dates, axis=1)])[0]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GeospatialClassificationPipeline, {}, "model for classification, found a PrithviForSemanticSegmentation"),
        (GeospatialRegressionPipeline, {}, 'regression, found a .*pipeline."geospatial-segmentation"'),
    ],
)
def test_a_pipeline_refuses_models_of_other_tasks(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(model=tiny_model(**options), image_processor=tiny_processor())


def test_options_of_maps_are_none_of_classes_of_images():
    pipe = GeospatialClassificationPipeline(model=make_classifier(), image_processor=tiny_processor(), device="cpu")
    with pytest.raises(TypeError, match=r"it takes batch_size, band_names, .*, top_k, threshold\.$"):
        pipe(scene_pixels(32, 32), overlap=0.5)
    with pytest.raises(ValueError, match="at least one scene"):
        pipe([])
    for option in ({"top_k": 0}, {"threshold": 1.5}):
        with pytest.raises(ValueError, match="Expected top_k of at least 1"):
            pipe(scene_pixels(32, 32), **option)
