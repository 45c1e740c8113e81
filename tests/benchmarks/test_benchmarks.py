# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks' own arithmetic, with sizes that take no time; their figures are never tested."""

import re
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from benchmarks import busy_machine, decoders, gpu, loading, model_sizes, real_chips, scenes
from prithvi_hf import PrithviConfig
from prithvi_hf.data import collate_chips


CPU = torch.device("cpu")
TINY = {"image_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "neck_hidden_size": 16}


def test_operations_are_counted():
    first, second = torch.zeros(3, 5), torch.zeros(5, 7)
    assert gpu.operations_of(lambda: first @ second) == 2 * 3 * 5 * 7


def test_a_matrix_rate_is_measured():
    assert gpu.matrix_rate(CPU, 1, sides=(16,)) > 0


def test_a_training_step_is_related_to_the_matrix_rate():
    row = gpu.time_large_training(1, CPU, peak=1e12, batch_size=1, head_hidden_size=8, **TINY)
    assert row["ratio"] == pytest.approx(row["fraction_of_matrix_rate"])
    assert row["tflops"] * 1e9 * row["ours_ms"] == pytest.approx(row["alternative_ms"] * 1e9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "forms"), [("cpu", ("eager",)), pytest.param("cuda", gpu.FORMS, marks=pytest.mark.gpu)]
)
def test_the_page_of_a_gpu_is_made_on_any_device(device, forms):
    sizes = {**TINY, "head_hidden_size": 8}
    page = gpu.make_page(1, torch.device(device), side=70, batches=[(1, 2)], sides=(16,), forms=forms, **sizes)
    forward, tile = (table.splitlines() for table in page.split("\n\n") if table.startswith("|"))
    assert [row.split(" | ")[0] for row in forward[2:]] == [f"| {form}" for form in forms]
    assert "chips/s | TFLOP/s | of the matrix rate | peak memory, GiB" in forward[0]
    assert re.fullmatch(r"\| eager \| 1 \| 2 \| [\d.]+ \| [\de.-]+ \| \d+% \| [\d.-]+ \| [\d.]+ \|", forward[2])
    assert len(tile) == 2 + min(2, len(forms))
    assert all(re.match(r"\| 70 px, (eager|compiled), (float32|bfloat16) \| [\d.]+ \|", row) for row in tile[2:])


def test_the_large_size_is_the_300m_one():
    with torch.device("meta"):
        model = gpu.make_large(torch.device("meta"))
    assert 3.0e8 < sum(weight.numel() for weight in model.prithvi.parameters()) < 3.2e8


@pytest.mark.slow
def test_ours_and_the_original_reader_give_the_same_crops(monkeypatch):
    """Whole chips, flipped or not: pixel values and labels are those of the original's order of steps."""
    monkeypatch.setattr(loading, "CROP", 512)
    with loading.open_sources(None) as sources:
        original = sources["original"].dataset
        for name in ("cached", loading.IN_WORKER, "cold"):
            source = sources[name]
            for index in (0, 5):
                found = source.finish(collate_chips(source.dataset.__getitems__([index])))
                pixels, labels = found if isinstance(found, tuple) else (found["pixel_values"], found["labels"])
                wanted = original[index]
                flips = [wanted["pixel_values"], wanted["pixel_values"].flip(-1)]
                masks = [wanted["labels"], wanted["labels"].flip(-1)]
                matches = [
                    np.allclose(pixels[0, :, 0], chip, atol=2e-5) and torch.equal(labels[0], mask)
                    for chip, mask in zip(flips, masks, strict=True)
                ]
                assert any(matches), (name, index)


def make_chip(labels):
    return SimpleNamespace(labels=np.array(labels))


def test_water_of_several_splits_is_pooled_over_pixels_with_a_label():
    chips = {"validation": [make_chip([[1, 1, 0, -100]])], "test": [make_chip([[1, 0, 0, 0]])]}
    chips["bolivia"] = [make_chip([[0, 0, 0, 1]])]
    found = {"validation": [[[1, 0, 1, 1]]], "test": [[[1, 0, 0, 255]]], "bolivia": [[[0, 1, 0, 1]]]}
    classes = {split: [np.array(mask) for mask in masks] for split, masks in found.items()}
    pooled, held_out, _ = real_chips.measure(chips, classes)
    assert (pooled, held_out) == (2 / 4, 1 / 2)


def test_a_map_in_blocks_has_all_its_borders_on_the_grid_and_one_that_is_shifted_has_none():
    blocks = np.kron(np.random.default_rng(0).integers(0, 2, (4, 5)), np.ones((16, 16), dtype=int))
    labelled = np.zeros_like(blocks)
    on_grid, every = real_chips.count_borders(blocks, labelled)
    assert on_grid == every > 100
    assert real_chips.count_borders(blocks[5:, 5:], labelled[5:, 5:])[0] == 0
    labelled[:, 40:] = -100
    assert real_chips.count_borders(blocks, labelled)[1] < every


@pytest.mark.parametrize("head", ["unet", "upernet"])
def test_the_plain_model_of_a_decoder_is_ours(monkeypatch, head):
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "unet_channels": [8, 8, 8, 8]}
    tiny = lambda **options: PrithviConfig(**{**options, **sizes, "head_hidden_size": 8})  # noqa: E731
    monkeypatch.setattr(decoders, "PrithviConfig", tiny)
    monkeypatch.setattr(decoders, "SIZE", 64)
    inference, training = decoders.time_head(head, 1)
    assert inference["logits_apart"] < 1e-4
    assert sum(inference["parts"].values()) == pytest.approx(1)
    assert training["ours_ms"] > 0


@pytest.mark.parametrize("kind", model_sizes.KINDS)
@pytest.mark.parametrize("head", model_sizes.HEADS)
def test_memory_and_time_of_a_model_are_measured(monkeypatch, kind, head):
    monkeypatch.setattr(model_sizes, "TRAIN_SIZE", 64)
    monkeypatch.setattr(model_sizes, "CHIP_SIZE", 96)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 4, "neck_hidden_size": 8}
    config = model_sizes.make_config("tiny", head, **sizes, head_hidden_size=8, unet_channels=[16, 8, 8, 8])
    _, seconds = model_sizes.measure(config, kind, repeats=1)  # the peak is that of a fresh process
    assert 0 < seconds < 60


def test_the_published_sizes_are_those_of_their_names():
    parameters = [row.split(" | ")[1] for row in model_sizes.tabulate_models(model_sizes.MODELS).splitlines()[2:]]
    assert parameters == ["86 M", "6 M", "86 M", "304 M", "631 M"]


def test_a_model_that_does_not_fit_is_not_measured(monkeypatch):
    free = type("Memory", (), {"available": 10**9})
    monkeypatch.setattr(model_sizes.psutil, "virtual_memory", lambda: free)
    found = model_sizes.measure_in_fresh_process("600M", "unet", "training step", 1)
    assert found == "not measured: needs 13 GB, 1 GB are free"


def test_busy_processes_end_with_what_they_are_beside():
    before = {process.pid for process in psutil.Process().children()}  # of other tests
    with busy_machine.busy_processes(2):
        started = {process.pid for process in psutil.Process().children()} - before
        assert len(started) >= 2
    assert started.isdisjoint({process.pid for process in psutil.Process().children()})


def test_the_way_of_the_pixels_of_a_scene_is_compared_with_gdal(monkeypatch):
    monkeypatch.setattr(scenes, "SIDE", 128)  # what is repeated
    monkeypatch.setattr(scenes, "in_fresh_process", lambda *_: 10**8)
    rows = scenes.run_against_gdal(1, quick=True, side=300)
    read, write, whole, tiny, memory = rows
    assert read["alternative_ms"] + write["alternative_ms"] == pytest.approx(whole["alternative_ms"])
    assert whole["alternative_ms"] == tiny["alternative_ms"]
    assert memory["alternative_mb"] == 12 * 300**2 / 1e6
    assert min(row.get("ours_ms", row.get("ours_mb")) for row in rows) > 0
