"""Training from the cache of decoded chips is training from the files, bit for bit."""

import gc
import json

import pytest
import torch
from safetensors.torch import load_file

from prithvi_hf.data import clear_decoded_cache
from tests.finetune_factory import SCRIPT, command_line, finetune, run, run_in_two_processes


SHORT = {"do_eval": "false", "do_predict": "false", "num_sample_predictions": 0, "augmentation": "d4"}


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def caches(folder):
    return sorted(path.name.split("-")[0] for path in (folder / "prithvi_hf_decoded").iterdir() if path.is_dir())


@pytest.mark.parametrize(("workers", "others"), [(0, ["worker", "files"]), (2, ["files"])])
def test_the_weights_are_those_of_training_from_files(data, tmp_path, workers, others):
    options = {**SHORT, "dataloader_num_workers": workers, "gradient_accumulation_steps": 2}
    run(data, tmp_path / "cached", **options, decoded_cache_dir=tmp_path / "cache")
    if "worker" in others:
        run(data, tmp_path / "worker", **options, decoded_cache_dir=tmp_path / "cache", normalize_on_device="false")
    run(data, tmp_path / "files", **options, decoded_cache="false", normalize_on_device="false")
    assert caches(tmp_path / "cache") == ["train", "validation"]
    for other in others:
        assert_equal(weights(tmp_path / "cached"), weights(tmp_path / other))
    histories = [json.loads((tmp_path / name / "trainer_state.json").read_text()) for name in ("cached", "files")]
    assert histories[0]["total_flos"] == histories[1]["total_flos"] > 0
    gc.collect()
    assert clear_decoded_cache(tmp_path / "cache") > 0


def test_a_full_disk_ends_the_run_before_it_begins(data, tmp_path, monkeypatch, capsys):
    free = type("Usage", (), {"free": 10})
    monkeypatch.setattr("prithvi_hf.data.chip_cache.shutil.disk_usage", lambda _: free)
    words = command_line(data, tmp_path / "OUT", decoded_cache_dir=tmp_path / "cache")
    assert finetune.main(words) == 2
    printed = capsys.readouterr().err
    assert "expected to write the cache of decoded chips" in printed
    assert "decoded_cache: false" in printed
    assert not (tmp_path / "OUT").exists()


@pytest.mark.slow
def test_two_processes_share_one_cache(data, trained_by_two, tmp_path):
    options = {**trained_by_two.options, "decoded_cache": "false"}
    printed = run_in_two_processes(tmp_path, SCRIPT, *command_line(data, tmp_path / "OUT", **options))
    assert trained_by_two.printed.count("Decoding 4 chips of train") == 1
    assert "Decoding" not in printed
    assert_equal(weights(trained_by_two.output), weights(tmp_path / "OUT"))
    assert caches(trained_by_two.options["decoded_cache_dir"]) == ["train", "validation"]
