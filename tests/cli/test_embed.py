# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf embed`: scenes, lists of scenes, chips and recipes, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from safetensors.torch import load_file, save_file

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviModel, embed_scene
from tests.command_line import assert_refused, run
from tests.raster_factory import make_burn_scars
from tests.scene_factory import save_model, scene_pixels, tiny_model, tiny_processor, write_scene


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fine-tuned model."""
    return save_model(tmp_path_factory.mktemp("saved") / "model")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_a_scene_is_embedded_as_in_python(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 70))
    options = ("--overlap", "0.25", "--blending", "cosine", "--window", "48", "--embedding_dtype", "float16")
    assert run("embed", "--model", model, "--frames", scene, "--output", tmp_path / "found.tif", *options) == 0
    assert "3 x 5 patches, 32 bands, layer 0" in capsys.readouterr().out
    keywords = {"overlap": 0.25, "blending": "cosine", "window": 48, "embedding_dtype": "float16"}
    embed_scene(tiny_model(), tiny_processor(), scene, tmp_path / "expected.tif", **keywords)
    assert np.array_equal(read(tmp_path / "found.tif"), read(tmp_path / "expected.tif"))


def test_a_backbone_takes_other_numbers_of_dates(tmp_path: Path) -> None:
    backbone = PrithviModel(tiny_model(num_frames=3).config)
    backbone.save_pretrained(tmp_path / "backbone")
    tiny_processor(num_frames=3).save_pretrained(tmp_path / "backbone")
    scene, words = write_scene(tmp_path / "scene.tif"), ("embed", "--model", tmp_path / "backbone", "--quiet")
    output = ("--output", tmp_path / "embeddings.tif")
    assert run(*words, "--frames", scene, *output) == 2
    assert run(*words, "--frames", scene, *output, "--num_frames", "1") == 0
    assert np.isfinite(read(tmp_path / "embeddings.tif")).all()


def test_many_scenes_are_embedded_once_and_failures_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "scenes").mkdir()
    for name in "ab":
        write_scene(tmp_path / "scenes" / f"{name}.tif", scene_pixels(32, 40))
    (tmp_path / "scenes" / "broken.tif").write_bytes(b"no GeoTIFF")
    words = ("embed", "--model", model, "--scenes", tmp_path / "scenes", "--output_dir", tmp_path / "out")
    assert run(*words) == 1
    assert "1 of 3 scenes failed" in capsys.readouterr().err
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tif")}
    assert sorted(times) == ["a.tif", "b.tif"]
    (tmp_path / "scenes" / "broken.tif").unlink()
    assert run(*words) == 0
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]
    assert counts == {"done": 0, "skipped": 2, "failed": 0}
    assert run(*words, "--blending", "cosine") == 0  # other embeddings than those that are there
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]
    assert counts == {"done": 2, "skipped": 0, "failed": 0}


@pytest.mark.parametrize("by_glob", [False, True])
def test_chips_of_a_folder_or_a_glob(by_glob: bool, model: Path, tmp_path: Path) -> None:
    (tmp_path / "chips" / "more").mkdir(parents=True)
    for name in ("a", "more/b"):
        write_scene(tmp_path / "chips" / f"{name}.tif", scene_pixels(32, 32))
    source = tmp_path / "chips" / "*.tif" if by_glob else tmp_path / "chips"
    words = ("embed", "--model", model, "--chips", source, "--output", tmp_path / "chips.parquet", "--pooling", "cls")
    assert run(*words) == 0
    table = pq.read_table(tmp_path / "chips.parquet").to_pydict()
    assert table["id"] == (["a"] if by_glob else ["a", "b"])
    assert len(table["embedding"][0]) == 32


def test_chips_of_a_recipe_are_prepared_as_it_says(model: Path, tmp_path: Path) -> None:
    data = make_burn_scars(tmp_path / "data")
    recipe = tmp_path / "burns.yaml"
    options = json.dumps({"cache_dir": str(tmp_path / "cache")})
    recipe.write_text(f"dataset: hls_burn_scars\ndataset_options: {options}\nrescale_factor: 10000\n")
    words = ("embed", "--model", model, "--chips", recipe, "--data_dir", data, "--output", tmp_path / "chips.parquet")
    assert run(*words, "--splits", "validation", "--quiet") == 0
    table = pq.read_table(tmp_path / "chips.parquet").to_pydict()
    assert set(table["split"]) == {"validation"}
    assert all(len(one) == 32 for one in table["embedding"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of --frames, --scenes and --chips, found none"),
        (("--frames", "a.tif", "--chips", "b"), "found --frames and --chips"),
        (("--frames", "scene.tif"), "--frames goes with --output"),
        (("--scenes", "scene.tif", "--output", "e.tif"), "--scenes goes with --output_dir"),
        (("--scenes", "scene.tif", "--output_dir", "out", "--dates", "2020-01-01"), "--dates are those of one scene"),
        (
            ("--frames", "scene.tif", "--output", "e.tif", "--layer", "3"),
            "layer: expected one of the model's 1 layers",
        ),
        (("--frames", "scene.tif", "--output", "scene.tif"), "is also an input"),
        (("--frames", "scene.tif", "--output", "e.tif", "--pooling", "cls"), "found --pooling, of chips alone"),
        (("--chips", ".", "--output", "e.parquet", "--frames_as", "separate"), "found --frames_as, of scenes alone"),
        (("--chips", "no*.tif", "--output", "e.parquet"), "expected GeoTIFFs in no*.tif, found none"),
        (("--chips", "no.tif", "--output", "e.parquet"), "expected GeoTIFFs in no.tif, found none"),
        (("--chips", "nowhere", "--output", "e.parquet"), "nowhere"),
    ],
)
def test_usage_errors(words: tuple, message: str, model: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "scene.tif")
    assert_refused(capsys, tmp_path, message, "embed", "--model", model, *words)


def test_a_model_without_an_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = PrithviConfig(architecture="unet", num_frames=1, image_size=32)
    PrithviForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    words = (
        "--model",
        tmp_path / "model",
        "--frames",
        write_scene(tmp_path / "scene.tif"),
        "--output",
        tmp_path / "e",
    )
    assert_refused(capsys, tmp_path, "Expected architecture prithvi, with an encoder", "embed", *words)


def test_weights_without_those_of_the_encoder_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weights[name] for name in weights if "layernorm" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    words = ("--model", folder, "--frames", write_scene(tmp_path / "scene.tif"), "--output", tmp_path / "e.tif")
    assert_refused(capsys, tmp_path, "Expected the weights of a PrithviModel", "embed", *words)
