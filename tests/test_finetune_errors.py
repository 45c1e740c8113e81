# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bad input of examples/finetune.py: exit status 2, one message with file and remedy, and nothing written."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.finetune_factory import RECIPE, SPLITS, command_line, finetune, finish, make_chips, run, start
from tests.raster_factory import SEN1FLOODS11_CODES, cut_off, labels, reflectance, write_raster


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


def break_image(root, change):
    """Change the image of a training chip, and name it."""
    path = next(root.rglob("Spain_2_S2Hand.tif"))
    change(path)
    return path.name


def other_size(path):
    write_raster(path, reflectance(13, 32), descriptions=SEN1FLOODS11_CODES)


def five_bands(path):
    write_raster(path, reflectance(5, 48))


def value_outside(root):
    mask = labels(48)
    mask[5, 5] = 7
    path = next(root.rglob("India_5_LabelHand.tif"))
    write_raster(path, mask)
    return path.name


def ignore_all(root):
    for chip in SPLITS["test"]:
        write_raster(next(root.rglob(f"{chip}_LabelHand.tif")), np.full((48, 48), -1, np.int16))
    return "Split test"


def remove_mask(root):
    next(root.rglob("Mekong_4_LabelHand.tif")).unlink()
    return "Mekong_4"


def empty_folder(root):
    shutil.rmtree(root)
    root.mkdir()
    return str(root)


def garbled_list(root):
    path = next(root.rglob("flood_train_data.csv"))
    path.write_bytes(b"\xe0\xe9\xff,")
    return str(path)


BAD_DATA = {
    "garbled list": (garbled_list, "UTF-8"),
    "truncated": (lambda root: break_image(root, lambda path: cut_off(path, 0.6)), "Spain_2_S2Hand.tif"),
    "cut in the header": (lambda root: break_image(root, lambda path: cut_off(path, 60)), "Spain_2_S2Hand.tif"),
    "text": (lambda root: break_image(root, lambda path: path.write_text("no raster")), "GeoTIFF"),
    "five bands": (lambda root: break_image(root, five_bands), "found 5"),
    "other size": (lambda root: break_image(root, other_size), "48"),
    "value outside": (value_outside, "7"),
    "all ignored": (ignore_all, "Check ignore_values"),
    "missing mask": (remove_mask, "mask"),
    "empty folder": (empty_folder, "layout of Sen1Floods11"),
}


def assert_refused(capsys, words, output, *parts):
    """Exit status 2, one message that says what and where, and nothing written."""
    capsys.readouterr()
    assert finetune.main(words) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out
    assert printed.err.count("finetune.py: error: ") == 1
    message = printed.err[printed.err.index("finetune.py: error: ") :]
    for part in parts:
        assert part in message
    assert "Traceback" not in printed.err
    assert not Path(output).exists()
    return message


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused(data, tmp_path, capsys, case):
    root = shutil.copytree(data, tmp_path / "data")
    change, part = BAD_DATA[case]
    name = change(root)
    message = assert_refused(capsys, command_line(root, tmp_path / "OUT"), tmp_path / "OUT", name, part)
    assert "xpected" in message
    assert len(message.splitlines()) <= 4


def test_every_bad_file_is_named_at_once(data, tmp_path, capsys):
    root = shutil.copytree(data, tmp_path / "data")
    names = [break_image(root, five_bands), empty_file(root)]
    assert_refused(capsys, command_line(root, tmp_path / "OUT"), tmp_path / "OUT", "2 of 4 chips", *names)


def empty_file(root):
    path = next(root.rglob("India_3_S2Hand.tif"))
    path.write_text("")
    return path.name


def test_unchecked_data_is_the_users_choice(data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    ignore_all(root)  # of use to nobody, but no file is broken
    results = run(root, tmp_path / "OUT", check_data=False, max_steps=1)
    assert results["test_loss"] is None
    assert results["test_mean_accuracy"] is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data_dir": "/absent"}, ["/absent"]),
        ({"dataset": "floods"}, ["'floods'", "sen1floods11", "geotiff_folder"]),
        ({"eval_split": "val"}, ["['val']", "'validation'", "--eval_split"]),
        ({"test_splits": ["test", "peru"]}, ["['peru']", "--do_predict false"]),
        ({"class_names": "none"}, ["class_names"]),
        ({"class_weights": [1, 2, 3]}, ["class_weights", "3"]),
        ({"hidden_size": 30}, ["hidden_size", "16"]),
        ({"bands": ["BLUE", "GREEN"]}, ["image_mean", "2"]),
        ({"image_mean": [1, 2]}, ["image_mean", "6"]),
        ({"dataset_options": "{"}, ["--dataset_options", "JSON"]),
        ({"dataset_options": '{"suffix": 1}'}, ["suffix"]),
        ({"crop_size": 0}, ["crop_size"]),
        ({"metric_for_best_model": "water_iou"}, ["metric_for_best_model", "mean_iou"]),
        ({"eval_overlap": 1}, ["eval_overlap"]),
        ({"learning_rate": "nan"}, ["learning_rate", "nan"]),
        ({"per_device_train_batch_size": 0}, ["per_device_train_batch_size", "0"]),
        ({"dataloader_num_workers": -1}, ["dataloader_num_workers", "-1"]),
        ({"loss": "lovasz"}, ["lovasz", "cross_entropy"]),
        ({"model": "/absent/model"}, ["/absent/model"]),
        ({"resume_from_checkpoint": "/absent/checkpoint"}, ["/absent/checkpoint"]),
        ({"config": "/absent.yaml"}, ["/absent.yaml"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_refused(data, tmp_path, capsys, options, parts):
    assert_refused(capsys, command_line(data, tmp_path / "OUT", **options), tmp_path / "OUT", *parts)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("learning_rate: 1e-4", ["recipe.yaml", "learning_rate", "write 1.0e-4"]),
        ("learnig_rate: 1.0e-4", ["recipe.yaml", "learnig_rate (did you mean learning_rate?)"]),
    ],
)
def test_bad_recipes_are_refused(data, tmp_path, capsys, line, parts):
    (tmp_path / "recipe.yaml").write_text(RECIPE.read_text() + f"\n{line}\n")
    words = command_line(data, tmp_path / "OUT", config=tmp_path / "recipe.yaml", learning_rate=None)
    assert_refused(capsys, words, tmp_path / "OUT", *parts)


@pytest.mark.slow
def test_a_recipe_that_is_no_text_is_refused(data, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_bytes(b"II*\x00\xe6\xff")
    words = command_line(data, tmp_path / "OUT", config=tmp_path / "recipe.yaml")
    assert_refused(capsys, words, tmp_path / "OUT", "recipe.yaml", "YAML")


def test_bad_input_as_a_process(data, tmp_path):
    """Two of them as the shell sees them."""
    root = shutil.copytree(data, tmp_path / "data")
    name = break_image(root, lambda path: path.write_text("no raster"))
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1e-4\n")
    processes = {
        name: start(command_line(root, tmp_path / "OUT")),
        "write 1.0e-4": start(["--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "OUT")]),
    }
    for part, process in processes.items():
        printed, status = finish(process)
        assert status == 2
        assert part in printed
        assert printed.count("finetune.py: error: ") == 1
        assert "Traceback" not in printed
    assert not (tmp_path / "OUT").exists()


def test_the_traceback_can_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("PRITHVI_HF_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        finetune.main(["--config", str(tmp_path / "absent.yaml"), "--output_dir", str(tmp_path / "OUT")])


@pytest.mark.slow
def test_two_processes_end_together_on_bad_data(data, tmp_path):
    """Each by itself: they are started without torchrun, which would end the second after the first."""
    root = shutil.copytree(data, tmp_path / "data")
    cut_off(next(root.rglob("Spain_2_S2Hand.tif")), 0.5)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = command_line(root, tmp_path / "OUT")
    processes = [start(words, RANK=str(rank), LOCAL_RANK=str(rank), **group) for rank in range(2)]
    for rank, process in enumerate(processes):
        printed, status = finish(process, timeout=90)
        assert ("Opening train" in printed) == (rank == 0)  # one reads the files, and tells the other
        assert status == 2, printed
        assert printed.count("finetune.py: error: Split train: 1 of 4 chips cannot be used") == 1
        assert "Spain_2_S2Hand.tif" in printed
        assert "Traceback" not in printed
    assert not (tmp_path / "OUT").exists()


def test_a_checkpoint_of_another_model_is_refused(data, tmp_path, capsys):
    run(data, tmp_path / "first", max_steps=2, do_eval="false", do_predict="false")
    checkpoint = next((tmp_path / "first").glob("checkpoint-*"))
    words = command_line(data, tmp_path / "OUT", resume_from_checkpoint=checkpoint, head_hidden_size=24)
    capsys.readouterr()
    assert_refused(capsys, words, tmp_path / "OUT", str(checkpoint), "head_hidden_size", "24")
