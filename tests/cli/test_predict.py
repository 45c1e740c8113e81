# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf predict`: what it writes, one message and nothing written for every error of a user's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate

from prithvi_hf.models.prithvi import inference_dtype_prithvi
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation, PrithviModel
from tests.command_line import assert_refused, run
from tests.scene_factory import (
    CRS_UTM,
    TRANSFORM,
    WINDOW,
    save_model,
    scene_pixels,
    tiny_model,
    tiny_processor,
    tiny_regressor,
    write_scene,
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), class_colors=["#101010", "#0000fe", "#fefefe"])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))


def predict(model, frames, output, *options):
    return run("predict", "--model", model, "--frames", *frames, "--output", output, "--device", "cpu", *options)


def test_predict_writes_a_map(model_folder, scene, tmp_path, capsys):
    assert predict(model_folder, [scene], tmp_path / "map.tif") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.crs, tuple(dataset.transform), dataset.shape) == (CRS_UTM, tuple(TRANSFORM), (40, 45))
        assert dataset.colormap(1)[1] == (0, 0, 254, 255)
        assert dataset.tags(1)["class_2"] == "cloud"
        counts = np.bincount(dataset.read(1).ravel(), minlength=3)
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    output = capsys.readouterr()
    assert all(f" {count} pixels" in output.out for count in counts[:3])
    assert "4/4" in output.err
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "scene.tif"]


def test_predict_writes_everything_it_can(model_folder, scene, tmp_path, capsys):
    options = ["--probabilities", "--probabilities_dtype", "uint8", "--quicklook", tmp_path / "q.png", "--quiet"]
    options += ["--window", WINDOW, 40, "--overlap", 0.25, "--batch_size", 3, "--class_values", "0=10", "2=30"]
    assert predict(model_folder, [scene], tmp_path / "map.tif", *options) == 0
    with rasterio.open(tmp_path / "map.tif") as dataset, rasterio.open(tmp_path / "map_probabilities.tif") as second:
        values = np.array([10, 1, 30])[second.read().argmax(0)]
        assert (dataset.read(1) == values).mean() > 0.95  # bytes round near ties away
        assert second.dtypes == ("uint8",) * 3
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "map_probabilities.tif", "q.png", "scene.tif"]
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_predict_takes_a_name_for_the_probabilities(model_folder, scene, tmp_path):
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif", "--quiet") == 0
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.dtypes == ("float32",) * 3


def test_predict_takes_frames_in_time_order(tmp_path):
    model = save_model(tmp_path / "model", num_frames=2)
    frames = [write_scene(tmp_path / f"{index}.tif", scene_pixels(40, 45, seed=index)) for index in range(2)]
    assert predict(model, frames, tmp_path / "map.tif", "--quiet") == 0
    assert predict(model, frames[::-1], tmp_path / "swapped.tif", "--quiet") == 0
    assert (tmp_path / "map.tif").read_bytes() != (tmp_path / "swapped.tif").read_bytes()


def test_predict_on_a_real_chip(model_folder, flood_chips, tmp_path):
    (chip,) = flood_chips.rglob("Bolivia_103757_S2Hand.tif")
    options = ["--overlap", 0, "--window", 128, "--quiet"]
    assert predict(model_folder, [chip], tmp_path / "map.tif", *options) == 0
    with rasterio.open(chip) as source, rasterio.open(tmp_path / "map.tif") as written:
        assert (written.crs, written.transform, written.shape) == (source.crs, source.transform, source.shape)
        edge = (source.read([2, 3, 4, 9, 12, 13]) == 0).all(axis=0)
        np.testing.assert_array_equal(written.read(1) == 255, edge)


def test_existing_outputs_are_replaced_or_refused(model_folder, scene, tmp_path, capsys):
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "exists already", *arguments, "--no_overwrite")
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0


def truncated(path):
    write_scene(path, scene_pixels(40, 45))
    path.write_bytes(path.read_bytes()[:-2000])


def text_file(path):
    path.write_text("date,place\n2018-02-15,Bolivia\n")


def five_bands(path):
    write_scene(path, scene_pixels(bands=5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "truncated"),
        (text_file, "expected a GeoTIFF"),
        (five_bands, "5 bands"),
        (lambda path: path.write_bytes(b""), "expected a GeoTIFF"),
        (lambda path: path.mkdir(), "expected a folder of GeoTIFFs named as layers"),
        (lambda path: None, "bad.tif"),
        (lambda path: path.symlink_to(path), "bad.tif"),
    ],
    ids=["truncated", "text", "five bands", "empty", "folder", "missing", "link to itself"],
)
def test_bad_frame_is_refused(model_folder, tmp_path, capsys, make, message):
    make(tmp_path / "bad.tif")
    arguments = ["predict", "--model", model_folder, "--frames", tmp_path / "bad.tif", "--output", tmp_path / "m.tif"]
    assert_refused(capsys, tmp_path, message, *arguments)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder that takes no files, even of root's")
def test_folders_that_take_no_files_are_known_before_the_work(scene, tmp_path, capsys):
    """Before the model is looked for, of which there is none here."""
    start = ["predict", "--model", tmp_path / "none", "--frames", scene, "--output"]
    assert_refused(capsys, tmp_path, "folder of the map /proc to be a folder that can be", *start, "/proc/m.tif")
    files = {"probabilities": "p.tif", "entropy": "e.tif", "polygons": "p.gpkg", "quicklook": "q.png"}
    for option, file in {**files, "report": "r.json"}.items():
        message = f"folder of the {option} /proc to be a folder that can be written, found that /proc takes no file"
        assert_refused(capsys, tmp_path, message, *start, tmp_path / "m.tif", f"--{option}", f"/proc/{file}")


def test_interruption_says_what_is_kept(model_folder, tmp_path, monkeypatch, capsys):
    scene, calls = write_scene(tmp_path / "scene.tif", scene_pixels(300, 40)), []
    forward = PrithviForSemanticSegmentation.forward

    def interrupt(*arguments, **options):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", interrupt)
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet", "--batch_size", "1") == 130
    assert re.search(r"interrupted: \d+ of \d+ parts .* are kept in .*--no_resume", capsys.readouterr().err)


def test_wrong_number_of_frames_is_refused(model_folder, scene, tmp_path, capsys):
    copy = write_scene(tmp_path / "copy.tif", scene_pixels(40, 45))
    arguments = ["predict", "--model", model_folder, "--frames", scene, copy, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "frame", *arguments)


def test_frames_on_other_grids_are_refused_where_asked(tmp_path, capsys):
    model = save_model(tmp_path / "model", num_frames=2)
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))
    other = write_scene(tmp_path / "other.tif", scene_pixels(40, 44))
    arguments = ["predict", "--model", model, "--frames", scene, other, "--output", tmp_path / "map.tif", "--quiet"]
    assert_refused(capsys, tmp_path, ") has 40 x 44 pixels", *arguments, "--grid_mismatch", "refuse")
    assert run(*arguments, "--device", "cpu") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.shape == (40, 45)


@pytest.mark.parametrize("name", ["none/of/these", "./none", "none", "{tmp}/none", "{tmp}/scene.tif", "{tmp}/empty"])
def test_no_model_is_refused(scene, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    model = name.replace("{tmp}", str(tmp_path))
    arguments = ["predict", "--model", model, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "no model", *arguments)


def test_backbone_without_a_head_is_refused(scene, tmp_path, capsys):
    config = PrithviConfig(num_frames=1, image_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    PrithviModel(config).save_pretrained(tmp_path / "backbone")
    tiny_processor().save_pretrained(tmp_path / "backbone")
    arguments = ["predict", "--model", tmp_path / "backbone", "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "fine-tuned", *arguments)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "prithvi", "hidden_size": 17}'),
        ("preprocessor_config.json", b"[]"),
        ("preprocessor_config.json", b'{"image_std": 0}'),
        ("preprocessor_config.json", None),
        ("model.safetensors", b"not safe"),
        ("model.safetensors", None),
    ],
)
def test_damaged_model_folder_is_refused(scene, tmp_path, capsys, name, content):
    folder = save_model(tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    arguments = ["predict", "--model", folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "", *arguments)


def test_pickled_weights_are_refused(scene, tmp_path, capsys):
    folder = save_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Path("an object of another class")}, folder / "pytorch_model.bin")
    arguments = ["predict", "--model", folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "could run code", *arguments)


def test_out_of_memory_says_what_helps(model_folder, scene, tmp_path, capsys, monkeypatch):
    def exhaust(*_, **__):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", exhaust)
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif", "--quiet"]
    assert_refused(capsys, tmp_path, "smaller --batch_size", *arguments)


def test_faults_of_the_program_are_not_hidden(model_folder, scene, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        predict(model_folder, [scene], tmp_path / "map.tif", "--quiet")
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_interruption_leaves_nothing(model_folder, scene, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", interrupt)
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_warnings_are_shown_without_source_lines(model_folder, tmp_path, capsys):
    reflectance = scene_pixels(40, 45).astype(np.float32) / 10_000  # the processor expects reflectance x 10,000
    scene = write_scene(tmp_path / "scene.tif", reflectance)
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0
    error = capsys.readouterr().err
    assert "prithvi-hf: warning: " in error
    assert "rescale_factor" in error
    assert ".py" not in error


def test_predict_writes_polygons_entropy_and_report(model_folder, scene, tmp_path, capsys):
    options = [
        "--polygons",
        "--entropy",
        "--report",
        "--quicklook",
        "--min_area",
        "150",
        "--polygon_classes",
        "no water",
    ]
    options += ["--blending", "cosine", "--tta", "d4", "--overlap", "0", "--window", WINDOW]
    assert predict(model_folder, [scene], tmp_path / "map.tif", *options) == 0
    names = ["map.gpkg", "map.json", "map.png", "map.tif", "map_entropy.tif", "scene.tif"]
    assert sorted(os.listdir(tmp_path)) == names
    frame = geopandas.read_file(tmp_path / "map.gpkg")
    assert set(frame.class_name) == {"no water"}
    assert frame.area_m2.min() >= 150
    assert frame.mean_probability.between(0.3, 1).all()
    with rasterio.open(tmp_path / "map_entropy.tif") as dataset:
        assert 0 <= dataset.read(1).min() <= dataset.read(1).max() <= 1
    report = json.loads((tmp_path / "map.json").read_text())
    assert report["options"]["blending"] == "cosine"
    assert report["bad_windows"] == []
    assert "polygons written to" in capsys.readouterr().out
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "exists already", *arguments, "--polygons", "--no_overwrite")


def test_weights_in_another_type(model_folder, scene, tmp_path):
    assert predict(model_folder, [scene], tmp_path / "a.tif", "--quiet") == 0
    assert predict(model_folder, [scene], tmp_path / "b.tif", "--quiet", "--dtype", "bfloat16") == 0
    first, second = (rasterio.open(tmp_path / name).read(1) for name in ("a.tif", "b.tif"))
    assert 0.9 < (first == second).mean() < 1


@pytest.mark.parametrize(("units", "chosen"), [("units of a test", "bfloat16"), (None, "float32")])
def test_auto_says_what_it_chose(model_folder, scene, scene_list, tmp_path, capsys, monkeypatch, units, chosen):
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: units)
    assert predict(model_folder, [scene], tmp_path / "a.tif", "--dtype", "auto", "--report") == 0
    assert f"predicted in {chosen}: " in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["dtype"]["chosen"] == chosen
    assert predict_many(model_folder, scene_list, tmp_path / "maps", "--dtype", "auto") == 1  # two are damaged
    choices = [found["details"]["dtype"] for found in summary_of(tmp_path / "maps").values() if found["details"]]
    assert [choice["chosen"] for choice in choices] == [chosen] * 2


def write_bands(folder, pixels, day, tile="20LMQ"):
    """The band files of an HLS granule."""
    name = f"HLS.S30.T{tile}.2022{day:03d}T100601.v2.0"
    (folder / name).mkdir(parents=True)
    for band, layer in zip(pixels, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True):
        write_scene(folder / name / f"{name}.{layer}.tif", band[None], descriptions=None)
    fmask = np.zeros((1, *pixels.shape[1:]), dtype=np.uint8)
    fmask[:, :5] = 2  # cloud
    write_scene(folder / name / f"{name}.Fmask.tif", fmask, nodata=255, descriptions=None)
    return folder / name


def test_three_months_of_granules(tmp_path):
    """Folders of one file per band, masked by Fmask, give the map of the same pixels in three files."""
    model = save_model(tmp_path / "model", num_frames=3)
    pixels = [scene_pixels(40, 45, seed=seed) for seed in range(3)]
    folders = [write_bands(tmp_path / "granules", one, day) for one, day in zip(pixels, (152, 182, 213), strict=True)]
    files = [write_scene(tmp_path / f"{index}.tif", one) for index, one in enumerate(pixels)]
    assert predict(model, files, tmp_path / "files.tif", "--quiet") == 0
    assert predict(model, folders, tmp_path / "folders.tif", "--quiet") == 0
    scenes = ["--scenes", tmp_path / "granules", "--output_dir", tmp_path / "maps", "--fmask", "cloud"]
    assert run("predict", "--model", model, *scenes, "--quiet", "--device", "cpu") == 0
    masked = tmp_path / "maps" / "T20LMQ_2022-06-01_2022-08-01.tif"
    written = [tmp_path / "files.tif", tmp_path / "folders.tif", masked]
    from_files, from_folders, with_fmask = (rasterio.open(path).read(1) for path in written)
    np.testing.assert_array_equal(from_files, from_folders)
    np.testing.assert_array_equal(with_fmask == 255, np.arange(40)[:, None].repeat(45, 1) < 5)


@pytest.fixture
def scene_list(tmp_path):
    """Four scenes, of which the third one is truncated and the fourth one missing."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_scene(folder / f"{name}.tif", scene_pixels(40, 45 + seed, seed=seed))
    broken = folder / "c.tif"
    broken.write_bytes(broken.read_bytes()[:-2000])
    path = tmp_path / "list.txt"
    path.write_text("in/a.tif\nin/b.tif\nin/c.tif\nin/missing.tif\n")
    return path


def predict_many(model, scenes, folder, *options):
    return run("predict", "--model", model, "--scenes", scenes, "--output_dir", folder, "--device", "cpu", *options)


def summary_of(folder):
    return {scene["name"]: scene for scene in json.loads((folder / "summary.json").read_text())["scenes"]}


def test_many_scenes(model_folder, scene_list, tmp_path, capsys):
    folder = tmp_path / "maps"
    assert predict_many(model_folder, scene_list, folder, "--probabilities", "--polygons", "parquet") == 1
    suffixes = (".json", ".parquet", ".tif", "_probabilities.tif")
    assert sorted(os.listdir(folder)) == sorted(
        [*(f"{name}{end}" for name in "ab" for end in suffixes), "summary.json"]
    )
    summary = summary_of(folder)
    assert [scene["status"] for scene in summary.values()] == ["done", "done", "failed", "failed"]
    assert "truncated" in summary["c"]["reason"]
    assert "missing.tif" in summary["missing"]["reason"]
    output = capsys.readouterr()
    assert "2 done, 0 skipped, 2 failed" in output.out
    assert "2 of 4 scenes failed" in output.err
    assert "Traceback" not in output.err
    assert predict(model_folder, [tmp_path / "in" / "b.tif"], tmp_path / "b.tif", "--quiet") == 0
    assert (tmp_path / "b.tif").read_bytes() == (folder / "b.tif").read_bytes()


def test_another_run_does_what_is_missing(model_folder, scene_list, tmp_path, capsys):
    folder = tmp_path / "maps"
    options = ["--overlap", "0", "--quiet"]
    assert predict_many(model_folder, scene_list, folder, *options) == 1
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tif")}
    write_scene(tmp_path / "in" / "c.tif", scene_pixels(40, 47))
    write_scene(tmp_path / "in" / "missing.tif", scene_pixels(40, 48))
    (folder / "b.tif").unlink()
    assert predict_many(model_folder, scene_list, folder, *options) == 0
    assert [scene["status"] for scene in summary_of(folder).values()] == ["skipped", "done", "done", "done"]
    assert (folder / "a.tif").stat().st_mtime_ns == before["a.tif"]
    assert predict_many(model_folder, scene_list, folder, *options) == 0
    assert {scene["status"] for scene in summary_of(folder).values()} == {"skipped"}
    # Other options, other pixels or another model make other maps, which are not taken for finished ones.
    write_scene(tmp_path / "in" / "a.tif", scene_pixels(40, 45, seed=9))
    assert predict_many(model_folder, scene_list, folder, *options) == 0
    assert [scene["status"] for scene in summary_of(folder).values()] == ["done", "skipped", "skipped", "skipped"]
    whole = (folder / "a.tif").read_bytes()
    (folder / "a.tif").write_bytes(whole[:-10])  # cut off after it was finished
    assert predict_many(model_folder, scene_list, folder, *options) == 0
    assert [scene["status"] for scene in summary_of(folder).values()] == ["done", "skipped", "skipped", "skipped"]
    assert (folder / "a.tif").read_bytes() == whole
    assert predict_many(model_folder, scene_list, folder, *options, "--blending", "cosine") == 0
    assert {scene["status"] for scene in summary_of(folder).values()} == {"done"}
    assert predict_many(model_folder, scene_list, folder, *options, "--no_resume") == 0
    assert {scene["status"] for scene in summary_of(folder).values()} == {"done"}
    assert predict_many(model_folder, scene_list, folder, *options, "--tta", "d4", "--no_overwrite") == 1
    assert "exists already" in summary_of(folder)["a"]["reason"]


def test_stac_items(model_folder, tmp_path):
    """Two items, one of band files and one of a file of all bands, by links relative to the collection."""
    pixels = scene_pixels(40, 45)
    folder = write_bands(tmp_path / "granules", pixels, 152)
    write_scene(tmp_path / "b.tif", pixels)
    files = {"a": sorted(folder.iterdir()), "b": [tmp_path / "b.tif"]}
    items = [
        {
            "type": "Feature",
            "id": name,
            "properties": {"datetime": "2022-06-01T10:06:01Z"},
            "assets": {path.name: {"href": str(path.relative_to(tmp_path)), "type": "image/tiff"} for path in paths},
        }
        for name, paths in files.items()
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert predict_many(model_folder, tmp_path / "items.json", tmp_path / "maps", "--quiet") == 0
    assert (tmp_path / "maps" / "a.tif").read_bytes() == (tmp_path / "maps" / "b.tif").read_bytes()


def launch(*arguments):
    """Run the command in two processes, as torchrun starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command += ["-m", "prithvi_hf.cli", "predict", *map(str, arguments), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.mark.slow
def test_maps_beside_their_scenes_are_not_mapped(model_folder, tmp_path, capsys):
    """The same line again does nothing, and only what is new after scenes have been added and maps copied."""
    folder = tmp_path / "tiles"
    for name in ("b", "sub/b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_scene(folder / f"{name}.tif", scene_pixels(40, 45))
    options = [
        "--probabilities",
        "--probabilities_dtype",
        "uint8",
        "--entropy",
        "--quicklook",
        "--polygons",
        "parquet",
    ]
    for source, output in ((folder, folder / "maps"), (folder / "**" / "*", folder / "sub" / "deep" / "maps")):
        assert predict_many(model_folder, source, output, *options) == 0
        assert {name: scene["status"] for name, scene in summary_of(output).items()} == {"b": "done", "sub_b": "done"}
        before = {path: path.stat().st_mtime_ns for path in output.iterdir() if path.name != "summary.json"}
        assert predict_many(model_folder, source, output, *options) == 0
        assert {name: scene["status"] for name, scene in summary_of(output).items()} == {
            "b": "skipped",
            "sub_b": "skipped",
        }
        assert before == {path: path.stat().st_mtime_ns for path in output.iterdir() if path.name != "summary.json"}
    (folder / "a").mkdir()
    write_scene(folder / "a" / "b.tif", scene_pixels(40, 45))
    (folder / "a" / "copy.tif").write_bytes((folder / "maps" / "b.tif").read_bytes())
    assert predict_many(model_folder, folder, folder / "maps", *options) == 0
    found = {name: scene["status"] for name, scene in summary_of(folder / "maps").items()}
    assert found == {"b": "skipped", "sub_b": "skipped", "a_b": "done"}


def test_bad_scenes_of_a_strangers_list_end_alone_and_tell_nothing(model_folder, tmp_path, capsys):
    """What can stand in a STAC collection that was fetched: every item is in the summary, and no byte of a file."""
    write_scene(tmp_path / "good.tif", scene_pixels(40, 45))
    (tmp_path / "secret.txt").write_text("hunter2, not an image")
    (tmp_path / "secret.tif").write_text("hunter2, not an image")
    loop = tmp_path / "loop.tif"
    loop.symlink_to(loop)
    assert predict_many(model_folder, tmp_path / "good.tif", tmp_path / "x") == 2
    (tmp_path / "map.tif").write_bytes(b"")
    hrefs = {
        "text": f"file://{tmp_path}/secret.txt",
        "named": str(tmp_path / "secret.tif"),
        "up": "../" * 20 + f"{tmp_path}/secret.txt",
        "empty": "map.tif",
        "loop": "loop.tif",
        "long": "x" * 5000 + ".tif",
        "device": "/dev/zero",
        "folder": "/proc/self",
        "half": "http://[::1/a.tif",
        "surrogate": "caf\ud800.tif",
        "good": "good.tif",
    }
    items = [
        {"type": "Feature", "id": name, "properties": {}, "assets": {"x": {"href": href, "type": "image/tiff"}}}
        for name, href in hrefs.items()
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert predict_many(model_folder, tmp_path / "items.json", tmp_path / "maps") == 1
    found = summary_of(tmp_path / "maps")
    assert {name for name, scene in found.items() if scene["status"] == "done"} == {"good"}
    assert list(found) == list(hrefs)
    output = capsys.readouterr()
    assert "hunter2"[:4] not in output.out + output.err + (tmp_path / "maps" / "summary.json").read_text()
    assert "Traceback" not in output.err


@pytest.mark.slow
def test_two_processes_divide_the_scenes(model_folder, scene_list, tmp_path):
    folder = tmp_path / "maps"
    done = launch("--model", model_folder, "--scenes", scene_list, "--output_dir", folder)
    assert done.returncode == 1, done.stderr
    summary = summary_of(folder)
    assert [scene["status"] for scene in summary.values()] == ["done", "done", "failed", "failed"]
    assert [scene["process"] for scene in summary.values()] == [0, 1, 0, 1]
    assert "truncated" in summary["c"]["reason"]
    assert done.stdout.count("2 done, 0 skipped, 2 failed") == 1
    for name in "ab":
        assert predict(model_folder, [tmp_path / "in" / f"{name}.tif"], tmp_path / f"{name}.tif", "--quiet") == 0
        assert (tmp_path / f"{name}.tif").read_bytes() == (folder / f"{name}.tif").read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_two_processes_make_one_map(model_folder, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(150, 70))
    done = launch("--model", model_folder, "--frames", scene, "--output", tmp_path / "split.tif", "--probabilities")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("150 x 70 pixels") == 1
    assert predict(model_folder, [scene], tmp_path / "whole.tif", "--probabilities", "--quiet") == 0
    for suffix in (".tif", "_probabilities.tif"):
        assert (tmp_path / f"split{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.slow
def test_two_processes_share_every_scene_of_a_list(model_folder, scene_list, tmp_path):
    folder = tmp_path / "maps"
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    damaged = write_scene(tmp_path / "in" / "c.tif", scene_pixels(600, 70), **options)
    content = bytearray(damaged.read_bytes())
    start, stop = (len(content) * share // 100 for share in (75, 95))  # whole blocks of the lower part
    content[start:stop] = b"\xff" * (stop - start)
    damaged.write_bytes(content)
    done = launch("--model", model_folder, "--scenes", scene_list, "--output_dir", folder, "--split_scene", "--quiet")
    assert done.returncode == 1, done.stderr
    summary = summary_of(folder)
    assert [scene["status"] for scene in summary.values()] == ["done", "done", "failed", "failed"]
    assert re.search(r"process 1: .*cannot be decoded", summary["c"]["reason"])  # the first process never reads there
    assert predict(model_folder, [tmp_path / "in" / "b.tif"], tmp_path / "b.tif", "--quiet") == 0
    assert (tmp_path / "b.tif").read_bytes() == (folder / "b.tif").read_bytes()


# ---------------------------------------------------------------- models of values and of whole images


@pytest.fixture(scope="module")
def regression_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression")
    tiny_regressor().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def test_a_regression_model_maps_values(regression_folder, scene, tmp_path, capsys):
    assert predict(regression_folder, [scene], tmp_path / "map.tif", "--quicklook") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.dtypes, dataset.units) == (("float32",), ("Mg/ha",))
        mean = dataset.read(1).mean()
    output = capsys.readouterr().out
    assert re.search(rf"aboveground biomass +mean +{mean:.4g}\d* Mg/ha", output)
    assert re.search(r"no data +0 pixels +0\.00 %", output)
    assert sorted(os.listdir(tmp_path)) == ["map.png", "map.tif", "scene.tif"]


def test_many_scenes_of_values_are_in_the_summary(regression_folder, scene, tmp_path):
    write_scene(tmp_path / "second.tif", scene_pixels(40, 45, seed=1))
    assert (
        run(
            *("predict", "--model", regression_folder, "--scenes", f"{tmp_path}/*.tif", "--device", "cpu", "--quiet"),
            *("--output_dir", tmp_path / "maps"),
        )
        == 0
    )
    scenes = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"]
    assert [one["details"]["values"]["unit"] for one in scenes] == ["Mg/ha"] * 2


def test_polygons_of_values_are_refused(regression_folder, scene, tmp_path, capsys):
    arguments = ("--model", regression_folder, "--polygons", "--device", "cpu")
    one, many = ("--frames", scene, "--output", tmp_path / "map.tif"), ("--scenes", f"{tmp_path}/*.tif")
    for place in (one, (*many, "--output_dir", tmp_path / "maps")):
        assert_refused(capsys, tmp_path, "gives values, not classes", "predict", *arguments, *place)


def test_a_model_of_whole_images_names_its_pipeline(scene, tmp_path_factory, tmp_path, capsys):
    folder = tmp_path_factory.mktemp("classifier")
    tiny_model(kind=PrithviForImageClassification).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    arguments = ("--model", folder, "--frames", scene, "--output", tmp_path / "map.tif", "--device", "cpu")
    assert_refused(capsys, tmp_path, 'Use pipeline("geospatial-classification", model=...)', "predict", *arguments)
