# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs that are killed, files that break, disks that fill: never a map that looks complete and is not."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate

from prithvi_hf.models.prithvi import inference_dtype_prithvi
from prithvi_hf.outputs import cog, staging
from prithvi_hf.outputs.staging import BusyOutputError, staging_folder
from prithvi_hf.scenes import predict_scene
from tests.raster_factory import cut_off
from tests.scene_factory import save_model, scene_pixels, tiny_model, tiny_processor, write_scene


SEED = 20260801
PAUSE = 0.03  # seconds that the model takes longer for each batch, so that kills meet it at work
OUTPUTS = {"probabilities": "p.tif", "entropy": "e.tif", "quicklook": "q.png"}
NAMES = ("map.tif", *OUTPUTS.values())
QUIET = {"show_progress": False}


def predict(folder, model=None, **options):
    """The command of all tests here; strips of 16 rows, in blocks of 16 rows."""
    outputs = {name: folder / file for name, file in OUTPUTS.items()}
    arguments = (model or tiny_model(), tiny_processor(), folder / "scene.tif", folder / "map.tif")
    return predict_scene(*arguments, **outputs, **QUIET, **options)


def make_scene(folder, height=200, width=60):
    folder.mkdir(exist_ok=True)
    pixels = scene_pixels(height, width)
    pixels[:, 40:90, 20:40] = -9999
    return write_scene(folder / "scene.tif", pixels, blockysize=16, interleave="pixel")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_scene(folder)
    predict(folder)
    assert sorted(os.listdir(folder)) == sorted([*NAMES, "scene.tif"])
    return contents(folder)


def after(model, count, action):
    """Have a model call `action` in its forward pass number `count`."""
    calls = []

    def hook(*_):
        calls.append(1)
        if len(calls) == count:
            action()

    model.register_forward_hook(hook)
    model.calls = calls
    return model


def staged_strips(folder):
    """Name and inode of every committed strip."""
    found = staging_folder(folder / "map.tif").glob("strip_*.npz")
    return {path.name: path.stat().st_ino for path in found}


def count_staged(folder):
    """How many strips are there now, while another process makes them, and removes them at the end."""
    try:
        return sum(name.startswith("strip_") for name in os.listdir(staging_folder(folder / "map.tif")))
    except FileNotFoundError:
        return 0


def run_as_command(folder, die_at=None):
    """What a subprocess does; `die_at` is the moment at which it kills itself, see `die`."""
    torch.set_num_threads(1)
    model = tiny_model()
    model.register_forward_hook(lambda *_: time.sleep(PAUSE))
    if die_at is not None:
        die(die_at)
    result = predict(folder, model)
    (folder / "report.json").write_text(json.dumps(result.report))


def die(moment):
    """Have this process kill itself in place of renaming a file to the name `moment`, or at a step of that name."""
    rename = os.replace

    def replace(source, target):
        if os.path.basename(target) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    if moment == "optimised copy":
        cog.copy_dataset = kill
    elif moment == "removal of the strips":
        staging.Staging.remove = kill


@pytest.fixture(scope="module")
def start():
    """Start `run_as_command` in a process of its own, which has everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def run(folder, **options):
        process = context.Process(target=run_as_command, args=(folder,), kwargs=options)
        process.start()
        return process

    return run


def run_to_the_end(start, folder, **options):
    """Run the command; returns its exit code, and the report where it ended well."""
    process = start(folder, **options)
    process.join(60)
    report = folder / "report.json"
    return process.exitcode, json.loads(report.read_text()) if report.exists() else None


def assert_continued(folder, staged, report, complete):
    """The outputs are those of an undisturbed run, and what was staged was not computed again."""
    assert contents(folder) == complete
    assert report["strips"]["resumed"] == len(staged)
    assert report["strips"]["computed"] == report["strips"]["total"] - len(staged)
    assert sorted(os.listdir(folder)) == sorted([*NAMES, "scene.tif", "report.json"])


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path, complete, start):
    make_scene(tmp_path)
    begin = time.monotonic()
    code, report = run_to_the_end(start, tmp_path)
    assert code == 0
    strips = report["strips"]["total"]
    pause = (time.monotonic() - begin) / strips
    moments = random.Random(SEED)
    kills, strips_seen = 0, set()
    # On a busy machine strips appear in bursts, and moments coincide: more kills then, until some differ.
    while kills < 5 or (len(strips_seen) <= 2 and kills < 20):
        for name in (*NAMES, "report.json"):
            (tmp_path / name).unlink(missing_ok=True)
        process = start(tmp_path)
        # By what is there, not by the clock alone: how long a process takes to begin differs from run to run.
        wanted = moments.randrange(strips)
        while process.is_alive() and count_staged(tmp_path) < wanted:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, pause))
        process.kill()
        process.join(60)
        staged, found = staged_strips(tmp_path), contents(tmp_path)
        assert all(content == complete[name] for name, content in found.items())
        if process.exitcode == 0:
            continue  # it was faster than the kill
        kills += 1
        strips_seen.add(len(staged))
        code, report = run_to_the_end(start, tmp_path)
        assert code == 0
        assert_continued(tmp_path, staged, report, complete)
    assert len(strips_seen) > 2, strips_seen  # different moments indeed


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What an undisturbed run writes of a scene of three strips."""
    folder = tmp_path_factory.mktemp("small")
    make_scene(folder, height=64)
    predict(folder)
    return contents(folder)


@pytest.mark.parametrize(
    ("moment", "strips", "named"),
    [
        ("plan.json", 0, []),
        ("strip_000000.npz", 0, []),
        ("strip_000002.npz", 2, []),
        ("optimised copy", 3, []),
        ("published.json", 3, []),
        ("p.tif", 3, []),
        ("e.tif", 3, ["p.tif"]),
        ("map.tif", 3, ["p.tif", "e.tif", "q.png"]),
        ("removal of the strips", 3, NAMES),
    ],
)
def test_a_kill_at_a_moment(tmp_path, small, start, moment, strips, named):
    """Files get names by renaming only, so dying in place of each renaming leaves every state there is."""
    make_scene(tmp_path, height=64)
    code, _ = run_to_the_end(start, tmp_path, die_at=moment)
    assert code == -signal.SIGKILL
    staged = staged_strips(tmp_path)
    assert len(staged) == strips
    assert contents(tmp_path) == {name: small[name] for name in named}
    code, report = run_to_the_end(start, tmp_path)
    assert code == 0
    assert_continued(tmp_path, staged, report, small)


@pytest.mark.slow
def test_the_command_is_killed_and_given_again(tmp_path):
    scene, model = make_scene(tmp_path, 800, 200), save_model(tmp_path / "model")
    options = ["--model", model, "--frames", scene, "--device", "cpu", "--report", tmp_path / "report.json", "--quiet"]
    command = [sys.executable, "-m", "prithvi_hf.cli", "predict", *options, "--output"]
    with subprocess.Popen([*command, tmp_path / "map.tif"]) as process:
        while count_staged(tmp_path) < 3:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    staged = staged_strips(tmp_path)
    assert not (tmp_path / "map.tif").exists()
    subprocess.run([*command, tmp_path / "map.tif"], check=True)
    strips = json.loads((tmp_path / "report.json").read_text())["strips"]
    assert strips["resumed"] == len(staged)
    assert strips["computed"] == strips["total"] - len(staged) > 0
    predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "undisturbed.tif", **QUIET)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "undisturbed.tif").read_bytes()


def test_existing_outputs_stay_until_the_new_ones_are_complete(tmp_path, start):
    make_scene(tmp_path)
    for name in NAMES:
        (tmp_path / name).write_text("old")
    code, _ = run_to_the_end(start, tmp_path, die_at="published.json")
    assert code == -signal.SIGKILL
    assert {name: (tmp_path / name).read_text() for name in NAMES} == dict.fromkeys(NAMES, "old")


def test_an_old_map_never_stands_beside_new_outputs(tmp_path, complete, start):
    make_scene(tmp_path)
    for name in NAMES:
        (tmp_path / name).write_text("old")
    code, _ = run_to_the_end(start, tmp_path, die_at="e.tif")
    assert code == -signal.SIGKILL
    found = contents(tmp_path)
    assert b"old" in found.values()
    assert set(found.values()) & set(complete.values())
    assert "map.tif" not in found
    predict(tmp_path, overwrite=True)
    assert contents(tmp_path) == complete


def interrupt_before_the_map(monkeypatch, tmp_path, **options):
    """Runs to the point where every other output has its name; the map is the last to get it."""
    rename = os.replace

    def replace(source, target):
        if os.path.basename(target) == "map.tif":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path, **options)


def test_the_report_gets_its_name_with_the_others(tmp_path, complete, monkeypatch):
    """A run that stopped just before the map can be completed where nothing may be overwritten, and leaves nothing."""
    make_scene(tmp_path)
    options = {"report": tmp_path / "map.json", "notes": {"run": "first"}, "overwrite": False}
    interrupt_before_the_map(monkeypatch, tmp_path, **options)
    assert (tmp_path / "map.json").exists()
    result = predict(tmp_path, **options)
    assert contents(tmp_path) == complete
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, "map.json", "scene.tif"])
    report = json.loads((tmp_path / "map.json").read_text())
    assert report == result.report
    assert report["run"] == "first"
    assert report["bytes"] == {name: len(complete[file]) for name, file in {"map": "map.tif", **OUTPUTS}.items()}


def test_what_is_kept_is_said(tmp_path):
    """After an error and after an interruption; not where nothing is kept."""
    make_scene(tmp_path)
    for count, error in ((1, OSError("no more")), (8, OSError("no more")), (9, KeyboardInterrupt())):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            predict(tmp_path, after(tiny_model(), count, fail), batch_size=1)
        staged, notes = staged_strips(tmp_path), getattr(caught.value, "__notes__", [])
        if count == 1:
            assert not staged
            assert not notes
        else:
            (note,) = notes
            assert note.startswith(f"{len(staged)} of 12 parts of the map are kept in {tmp_path}")
            assert "resume=False" in note


def test_outputs_of_the_run_itself_do_not_count_as_existing(tmp_path, complete, monkeypatch):
    """With `overwrite=False`, a run that stopped between the names of its outputs can be continued."""
    make_scene(tmp_path)
    interrupt_before_the_map(monkeypatch, tmp_path, overwrite=False)
    assert set(contents(tmp_path)) == set(OUTPUTS.values())
    predict(tmp_path, overwrite=False)
    assert contents(tmp_path) == complete
    with pytest.raises(ValueError, match="exists already"):
        predict(tmp_path, overwrite=False)


def test_a_file_that_disappears(tmp_path, complete):
    scene = make_scene(tmp_path)
    model = after(tiny_model(), 4, lambda: os.rename(scene, tmp_path / "away.tif"))
    with pytest.raises(ValueError, match=r"scene\.tif"):
        predict(tmp_path, model)
    assert contents(tmp_path) == {}
    strips = staged_strips(tmp_path)
    assert strips
    os.rename(tmp_path / "away.tif", scene)
    result = predict(tmp_path)
    assert result.report["strips"]["resumed"] == len(strips)
    assert contents(tmp_path) == complete


def test_a_file_that_is_cut_off_and_fixed(tmp_path, complete):
    scene = make_scene(tmp_path)
    whole = scene.read_bytes()
    with pytest.raises(ValueError, match=r"scene\.tif.*(damaged|truncated)"):
        predict(tmp_path, after(tiny_model(), 4, lambda: cut_off(scene, 0.6)))
    assert contents(tmp_path) == {}
    scene.write_bytes(whole)  # at another time: nobody knows that it is the same
    with pytest.warns(UserWarning, match="another run.*other scene"):
        result = predict(tmp_path)
    assert result.report["strips"]["resumed"] == 0
    assert contents(tmp_path) == complete


@pytest.mark.parametrize("action", [os.utime, os.unlink])
def test_a_file_that_changes_after_it_was_read(tmp_path, action):
    scene = make_scene(tmp_path, 40)
    with pytest.raises(OSError, match="changed or gone: nothing was written"):
        predict(tmp_path, after(tiny_model(), 2, lambda: action(scene)))
    assert contents(tmp_path) == {}


def test_a_damaged_block_is_an_error_or_no_data(tmp_path, complete):
    scene = make_scene(tmp_path)
    content = bytearray(scene.read_bytes())
    with rasterio.open(scene) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_0_5", "TIFF", 1))
    content[place : place + 40] = bytes(40)
    scene.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"scene\.tif"):
        predict(tmp_path)
    assert contents(tmp_path) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # strips of the run that stopped at the error
        result = predict(tmp_path, on_read_error="nodata")
    (bad,) = result.report["bad_windows"]
    assert bad["file"] == str(scene)
    row, _, height, _ = bad["window"]
    assert (row, height) == (80, 16)
    assert (result.mask[80:96] == 255).all()
    assert (result.mask[96:] != 255).all()
    assert result.report["nodata_fraction"] == pytest.approx((result.mask == 255).mean())


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("strips", [0, 3])
def test_the_disk_fills_while_strips_are_kept(tmp_path, complete, monkeypatch, set_threads, strips):
    set_threads(1)  # a batch is one call of the model
    make_scene(tmp_path)
    save, calls = np.savez, []

    def savez(*arguments, **options):
        calls.append(1)
        if len(calls) > strips:
            arguments[0].write(b"half a strip")
            full_disk()
        save(*arguments, **options)

    monkeypatch.setattr(staging.np, "savez", savez)
    model = tiny_model()
    after(model, 10**9, None)
    with pytest.raises(OSError, match=r"disk full.*run the same command again"):
        predict(tmp_path, model)
    assert len(model.calls) < 8  # soon, not at the end of the scene
    monkeypatch.undo()
    assert contents(tmp_path) == {}
    assert len(staged_strips(tmp_path)) == strips
    assert staging_folder(tmp_path / "map.tif").exists() == bool(strips)
    assert predict(tmp_path).report["strips"]["resumed"] == strips
    assert contents(tmp_path) == complete


@pytest.mark.parametrize("part", ["copy_dataset", "sync_to_disk", "DatasetWriter"])
def test_the_disk_fills_in_the_last_pass(tmp_path, complete, monkeypatch, part):
    make_scene(tmp_path)
    monkeypatch.setattr(cog, part, full_disk)
    with pytest.raises(OSError, match=r"disk full.*run the same command again"):
        predict(tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == {}
    assert not (staging_folder(tmp_path / "map.tif") / "final").exists()  # the room is given back
    result = predict(tmp_path)
    assert result.report["strips"]["computed"] == 0
    assert contents(tmp_path) == complete


def test_a_limit_on_files_is_a_full_disk(tmp_path, complete):
    """The system's own error, where the others here are made up."""
    resource = pytest.importorskip("resource")
    make_scene(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[0][1]))
        with pytest.raises(OSError, match=r"full|cannot be written"):
            predict(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert contents(tmp_path) == {}
    predict(tmp_path)
    assert contents(tmp_path) == complete


def test_too_little_space_is_known_beforehand(tmp_path, monkeypatch):
    make_scene(tmp_path)
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    model = after(tiny_model(), 10**9, None)
    with pytest.raises(OSError, match=r"Expected about \d+ MB free.*map\.tif.*unfinished parts, found 0 MB"):
        predict(tmp_path, model)
    assert not model.calls
    assert os.listdir(tmp_path) == ["scene.tif"]


def interrupted(folder, strips=4):
    """Leave a run that was stopped after some strips."""
    model = after(tiny_model(), strips + 1, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict(folder, model)
    assert staged_strips(folder)


def test_a_damaged_strip_is_computed_again(tmp_path, complete):
    make_scene(tmp_path)
    interrupted(tmp_path)
    strips = sorted(staging_folder(tmp_path / "map.tif").glob("strip_*.npz"))
    content = bytearray(strips[1].read_bytes())
    content[200] ^= 1
    strips[1].write_bytes(bytes(content))
    result = predict(tmp_path)
    assert result.report["strips"]["resumed"] == len(strips) - 1
    assert contents(tmp_path) == complete


@pytest.mark.parametrize("change", ["overlap", "weights", "processor", "scene", "products"])
def test_strips_of_another_run_are_not_used(tmp_path, complete, change):
    make_scene(tmp_path)
    if change == "overlap":
        model = after(tiny_model(), 4, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path, model, overlap=0.25)
    elif change == "weights":
        model = after(tiny_model(), 4, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with torch.no_grad():
            model.decode_head.classifier.bias[0] += 1e-3
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path, model)
    else:
        interrupted(tmp_path)
        plan = staging_folder(tmp_path / "map.tif") / "plan.json"
        stored = json.loads(plan.read_text())
        if change == "processor":
            stored["processor"]["image_mean"][0] += 1
        elif change == "scene":
            stored["scene"]["files"] = []
        else:
            stored["options"]["needs"] = []
        plan.write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match="belong to another run"):
        result = predict(tmp_path)
    assert result.report["strips"]["resumed"] == 0
    assert contents(tmp_path) == complete


def test_another_batch_size_continues(tmp_path, complete):
    """So that a run that met the limits of its device need not begin again."""
    make_scene(tmp_path)
    interrupted(tmp_path)
    result = predict(tmp_path, batch_size=2)
    assert result.report["strips"]["resumed"] > 0
    assert (tmp_path / "map.tif").read_bytes() == complete["map.tif"]


def test_scenes_with_nan_for_no_data_continue(tmp_path):
    pixels = scene_pixels(100, 40).astype(np.float32)
    pixels[:, :20] = np.nan
    write_scene(tmp_path / "scene.tif", pixels, nodata=np.nan)
    interrupted(tmp_path, strips=2)
    assert predict(tmp_path).report["strips"]["resumed"] > 0


def test_a_file_that_appears_meanwhile_is_not_replaced_where_asked(tmp_path):
    make_scene(tmp_path, 40)
    with pytest.raises(ValueError, match=r"map\.tif exists already"):
        predict(tmp_path, after(tiny_model(), 2, lambda: (tmp_path / "map.tif").write_text("mine")), overwrite=False)
    assert contents(tmp_path) == {"map.tif": b"mine"}


def test_beginning_again_by_option(tmp_path, complete):
    make_scene(tmp_path)
    interrupted(tmp_path)
    assert predict(tmp_path, resume=False).report["strips"]["resumed"] == 0
    assert contents(tmp_path) == complete


def test_two_runs_of_one_output_are_kept_apart(tmp_path, complete):
    make_scene(tmp_path)
    refused = []

    def second_run():
        with pytest.raises(BusyOutputError, match=rf"another one at work \(process {os.getpid()}"):
            predict(tmp_path)
        refused.append(1)

    predict(tmp_path, after(tiny_model(), 3, second_run))
    assert refused
    assert contents(tmp_path) == complete


def predict_together(folder, count, models=None, **options):
    """Threads stand for the processes of one run; returns a result or an error for each."""
    barrier, results, board = threading.Barrier(count), [None] * count, {}

    def share(rank, value):
        board[rank] = value
        barrier.wait(30)
        return board[0]

    def one(rank):
        model = models[rank] if models else tiny_model()
        group = SimpleNamespace(index=rank, count=count, is_main=rank == 0, barrier=lambda: barrier.wait(30))
        group.share = partial(share, rank)
        try:
            results[rank] = predict(folder, model, group=group, **options)
        except (OSError, ValueError) as error:
            results[rank] = error

    torch.manual_seed(0)
    models = models or [tiny_model() for _ in range(count)]
    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_make_the_same_map(tmp_path, complete, count):
    make_scene(tmp_path)
    results = predict_together(tmp_path, count)
    assert contents(tmp_path) == complete
    computed = [result.report["strips"]["computed"] for result in results]
    assert sum(computed) == results[0].report["strips"]["total"]
    assert min(computed) >= 3
    assert results[1].class_counts() == results[0].class_counts()
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, "scene.tif"])


@pytest.mark.parametrize(("units", "chosen"), [("units of a test", "bfloat16"), (None, "float32")])
def test_several_processes_predict_in_the_dtype_that_the_first_one_chooses(tmp_path, monkeypatch, units, chosen):
    make_scene(tmp_path, height=70)
    asked = []
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: asked.append(1) or units)
    results = predict_together(tmp_path, 2, dtype="auto")
    assert len(asked) == 1
    assert [result.report["dtype"]["chosen"] for result in results] == [chosen] * 2
    assert results[0].report["dtype"] == results[1].report["dtype"]


def test_a_process_that_fails_fails_the_run_and_the_rest_is_kept(tmp_path, complete):
    make_scene(tmp_path)
    models = [tiny_model() for _ in range(3)]
    after(models[1], 2, full_disk)
    results = predict_together(tmp_path, 3, models)
    assert "No space left" in str(results[1])
    assert "another process of this run failed" in str(results[0])
    assert contents(tmp_path) == {}
    kept = len(staged_strips(tmp_path))
    assert kept > 4
    assert predict(tmp_path).report["strips"]["resumed"] == kept
    assert contents(tmp_path) == complete


def test_an_output_elsewhere_is_made_there(tmp_path, complete):
    make_scene(tmp_path)
    (tmp_path / "other").mkdir()
    options = {"probabilities": tmp_path / "other" / "p.tif", **QUIET}
    predict_scene(tiny_model(), tiny_processor(), tmp_path / "scene.tif", tmp_path / "map.tif", **options)
    assert (tmp_path / "other" / "p.tif").read_bytes() == complete["p.tif"]
    assert os.listdir(tmp_path / "other") == ["p.tif"]
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "other", "scene.tif"]


def test_the_undisturbed_outputs_are_valid(tmp_path, complete):
    for name, content in complete.items():
        (tmp_path / name).write_bytes(content)
        if name.endswith(".tif"):
            assert cog_validate(tmp_path / name, strict=True)[0]
