# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bad input of examples/finetune.py: exit status 2, one message with file and remedy, and nothing written."""

import errno
import multiprocessing
import os
import resource
import shutil
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from prithvi_hf.disk import is_disk_full
from prithvi_hf.training.checkpoints import find_damage, lock_output_folder
from tests.finetune_factory import (
    HEADS,
    RECIPE,
    SIZES,
    SPLITS,
    command_line,
    finetune,
    finish,
    run,
    start,
)
from tests.raster_factory import SEN1FLOODS11_CODES, cut_off, labels, reflectance, write_raster


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
        ({"bands": ["BLUE", "GREEN"]}, ["BLUE, GREEN", "2"]),
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
        ("crop_size: 64", ["recipe.yaml", "crop_size twice"]),
    ],
)
def test_bad_recipes_are_refused(data, tmp_path, capsys, line, parts):
    lines = [other for other in RECIPE.read_text().splitlines() if not other.startswith("learning_rate:")]
    (tmp_path / "recipe.yaml").write_text("\n".join([*lines, line]))
    words = command_line(data, tmp_path / "OUT", config=tmp_path / "recipe.yaml", learning_rate=None)
    assert_refused(capsys, words, tmp_path / "OUT", *parts)


def test_names_that_no_model_can_be_saved_with_are_refused_before_training(data, finished, tmp_path, capsys):
    words = command_line(data, tmp_path / "OUT", model=finished, **dict.fromkeys([*SIZES, *HEADS]))
    words += ["--class_names", "land", "water\nor ice"]
    assert_refused(capsys, words, tmp_path / "OUT", "without control characters", r"water\nor ice")


@pytest.mark.slow
def test_a_recipe_that_is_no_text_is_refused(data, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_bytes(b"II*\x00\xe6\xff")
    words = command_line(data, tmp_path / "OUT", config=tmp_path / "recipe.yaml")
    assert_refused(capsys, words, tmp_path / "OUT", "recipe.yaml", "YAML")


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


@pytest.mark.parametrize(
    ("name", "value"), [("head_hidden_size", 24), ("neck", "geospatial"), ("loss", "dice"), ("num_attention_heads", 1)]
)
def test_a_checkpoint_of_another_model_is_refused(data, finished, tmp_path, capsys, name, value):
    checkpoint = finished / "checkpoint-2"
    words = command_line(data, tmp_path / "OUT", resume_from_checkpoint=checkpoint, **{name: value})
    assert_refused(capsys, words, tmp_path / "OUT", str(checkpoint), f"{name}: ", f"not {value}")


# ---------------------------------------------------------------- where it writes


def no_data(*_):
    pytest.fail("the data were read before the output folder was checked")


@pytest.fixture
def unread(monkeypatch):
    monkeypatch.setattr(finetune, "load_splits", no_data)
    monkeypatch.setattr(finetune.TrainingRecipe, "build_model", no_data)


@pytest.mark.parametrize("below", ["", "OUT", "deep/OUT"])
def test_an_output_folder_that_is_a_file_or_below_one(tmp_path, capsys, unread, below):
    (tmp_path / "file").write_text("kept")
    capsys.readouterr()
    assert finetune.main(command_line("/absent", tmp_path / "file" / below)) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is not a folder" in message
    assert message.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("below", ["", "deep/OUT"])
def test_an_output_folder_that_takes_no_files(tmp_path, capsys, unread, monkeypatch, below):
    def refuse(*_, dir, **__):
        assert Path(dir) == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("prithvi_hf.disk.tempfile.TemporaryFile", refuse)
    capsys.readouterr()
    assert finetune.main(command_line("/absent", tmp_path / below)) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path} takes no file (Read-only file system)" in message
    assert "--output_dir" in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_up_to(size):
    """No file may become larger; Python ignores the signal that goes with it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_fills_while_checkpoints_are_written(data, finished, tmp_path, capsys):
    """The first checkpoint cannot be written whole; with room again the run goes on, past what is left of it."""
    output = tmp_path / "OUT"
    sizes = {path.name: path.stat().st_size for path in (finished / "checkpoint-2").iterdir()}
    assert sizes["optimizer.pt"] > sizes["model.safetensors"]
    for name in ("model.safetensors", "optimizer.pt"):
        capsys.readouterr()
        with files_up_to(sizes[name] - 100):
            assert finetune.main(command_line(data, output)) == 2
        printed = capsys.readouterr().err
        message = printed[printed.index("finetune.py: error: ") :]
        assert message.count("\n") == 1
        assert f"the files in {output}, found the disk full" in message
        assert "there is no whole checkpoint yet" in message
        assert find_damage(output / "checkpoint-2").startswith(name)
    run(data, output, resume_from_checkpoint="true")
    assert find_damage(output / "checkpoint-4") is None


def set_nothing_up(recipe):
    """A run that has begun, without a trainer."""
    return finetune.Run(recipe, trainer=None, splits={})


def test_errors_that_are_no_full_disk_keep_their_traceback(monkeypatch, tmp_path):
    def fail(run):
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")  # shared memory's

    monkeypatch.setattr(finetune, "setup", set_nothing_up)
    with pytest.raises(RuntimeError, match="unable to write"):
        finetune.main(["--config", str(RECIPE), "--output_dir", str(tmp_path / "OUT")], execute=fail)
    (tmp_path / "cut.pt").write_bytes(b"PK" * 100)
    with pytest.raises(RuntimeError) as damaged:
        torch.load(tmp_path / "cut.pt", mmap=True)
    assert not is_disk_full(damaged.value)


# ---------------------------------------------------------------- what happens while it runs


class Meddler(TrainerCallback):
    """Does something after the first step."""

    def __init__(self, meddle):
        self.meddle = meddle

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.meddle()


def meddled(words, meddle):
    """Run, and do something after the first step."""

    def execute(run):
        run.trainer.add_callback(Meddler(meddle))
        finetune.execute(run)

    return finetune.main(words, execute=execute)


def test_an_output_folder_that_is_removed_ends_the_run_with_one_sentence(data, tmp_path, capsys):
    output = tmp_path / "OUT"
    assert meddled(command_line(data, output), lambda: shutil.rmtree(output)) == 2
    message = capsys.readouterr().err.partition("finetune.py: ")[2]
    assert message.startswith(f"error: Expected the output folder {output} to stay")
    assert message.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_is_cut_off_ends_the_run_with_a_message(data, tmp_path, capsys, workers):
    def cut():
        for pixels in (tmp_path / "cache").rglob("pixels.bin"):
            os.truncate(pixels, 5000)

    words = command_line(data, tmp_path / "OUT", decoded_cache_dir=tmp_path / "cache", dataloader_num_workers=workers)
    assert meddled(words, cut) == 2
    message = capsys.readouterr().err.partition("finetune.py: ")[2]
    assert "the cache of decoded chips is damaged. Remove this folder; it is made again; there is no whole" in message
    assert message.count("\n") == 1


def test_chips_that_are_replaced_are_named(data, tmp_path, caplog):
    root = shutil.copytree(data, tmp_path / "data")
    changed, touched = (next(root.rglob(f"{name}_LabelHand.tif")) for name in ("Ghana_8", "Spain_9"))

    def replace():
        write_raster(changed, labels(48)[::-1].copy())
        touched.touch()

    assert meddled(command_line(root, tmp_path / "OUT"), replace) == 0
    assert (
        f"the chips of test to stay as they were when they were checked, found 1 file(s) changed or gone: {changed}"
        in caplog.text
    )


def test_two_runs_do_not_write_to_one_folder(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prithvi_hf.training.checkpoints._SECONDS_TO_WAIT", 0)
    words, statuses = command_line(data, tmp_path / "OUT"), []
    assert meddled(words, lambda: statuses.append(finetune.main(words))) == 0
    assert statuses == [2]
    assert f"Expected --output_dir {tmp_path / 'OUT'} to be of one run at a time" in capsys.readouterr().err
    assert not list((tmp_path / "OUT").glob("earlier-*"))


def test_a_killed_run_releases_its_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        lock = lock_output_folder(tmp_path / "OUT")
        held.set()
        time.sleep(60)
        lock.release()

    process = context.Process(target=hold)
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    lock_output_folder(tmp_path / "OUT").release()


# ---------------------------------------------------------------- damaged checkpoints


def test_a_damaged_checkpoint_that_is_named_is_refused(data, output, tmp_path, capsys):
    checkpoint = output / "checkpoint-2"
    cut_off(checkpoint / "optimizer.pt", 0.9)
    words = command_line(data, tmp_path / "OTHER", resume_from_checkpoint=checkpoint)
    message = assert_refused(capsys, words, tmp_path / "OTHER", str(checkpoint), "optimizer.pt is damaged")
    assert "--resume_from_checkpoint true" in message


# ---------------------------------------------------------------- interruptions


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("whole", ["checkpoint-4", "checkpoint-2", None])
def test_an_interrupted_run_says_where_a_resume_starts(output, capsys, monkeypatch, whole):
    for checkpoint in output.glob("checkpoint-*"):
        if whole is None or checkpoint.name > whole:
            (checkpoint / "trainer_state.json").unlink()
    monkeypatch.setattr(finetune, "setup", set_nothing_up)
    assert finetune.main(["--config", str(RECIPE), "--output_dir", str(output), "--use_cpu"], execute=interrupt) == 130
    message = capsys.readouterr().err
    assert "interrupted" in message
    expected = f"continues from {output / whole}\n" if whole else "no whole checkpoint yet"
    assert expected in message


def test_an_interruption_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "setup", interrupt)
    assert finetune.main(["--config", str(RECIPE), "--output_dir", str(tmp_path / "OUT")]) == 130
    assert "nothing was written" in capsys.readouterr().err
