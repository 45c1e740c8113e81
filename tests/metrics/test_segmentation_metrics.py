# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of the segmentation metrics: the golden values, a brute-force loop, streaming, processes, loading by path."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file

import prithvi_hf
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    SegmentationMetrics,
    confusion_matrix,
    metrics_from_confusion_matrix,
)


METRIC_FOLDER = Path(prithvi_hf.__file__).parent / "metrics" / "segmentation_metrics"
GOLDEN_NAMES = {"IoU": "iou", "Acc": "accuracy", "Fscore": "f1", "Precision": "precision", "Recall": "recall"}


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "metric_mmseg.safetensors")


@pytest.fixture
def maps():
    """Four chips of 3 classes with ignored pixels: predictions and references (4, 8, 9)."""
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(0, 3, (4, 8, 9), generator=generator)
    references = torch.randint(0, 3, (4, 8, 9), generator=generator)
    references[torch.rand(references.shape, generator=generator) < 0.2] = -100
    return predictions, references


def brute_force(predictions, references, num_labels, ignore_index):
    matrix = [[0] * num_labels for _ in range(num_labels)]
    for predicted, reference in zip(np.ravel(predictions).tolist(), np.ravel(references).tolist(), strict=True):
        if reference != ignore_index:
            matrix[reference][predicted] += 1
    return matrix


def assert_golden_matrix(matrix, golden, group, index=()):
    hits, labelled, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    found = {"intersect": hits, "label": labelled, "pred": predicted, "union": labelled + predicted - hits}
    for name, values in found.items():
        torch.testing.assert_close(values.float(), golden[f"out.{group}.{name}"][index], rtol=0, atol=0)


def test_counts_equal_the_original_per_image_and_in_total(golden):
    predictions, references = golden["in_.pred"], golden["in_.label"]
    matrices = [confusion_matrix(p, r, 6, 255) for p, r in zip(predictions, references, strict=True)]
    for index, matrix in enumerate(matrices):
        assert_golden_matrix(matrix, golden, "per_image", index)
    assert_golden_matrix(confusion_matrix(predictions, references, 6, 255), golden, "total", ...)
    assert torch.equal(sum(matrices), confusion_matrix(predictions, references, 6, 255))


def test_metrics_equal_the_original(golden):
    result = metrics_from_confusion_matrix(confusion_matrix(golden["in_.pred"], golden["in_.label"], 6, 255))
    for original, name in GOLDEN_NAMES.items():
        expected = golden[f"out.nan_ok.{original}"].tolist()
        assert [value is None for value in result[f"per_category_{name}"]] == [math.isnan(value) for value in expected]
        found = [math.nan if value is None else value for value in result[f"per_category_{name}"]]
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
        percent = golden[f"out.summary_pct.{original}"].item()
        assert round(100 * result[f"mean_{name}"], 2) == pytest.approx(percent, abs=1e-5)
    assert result["overall_accuracy"] == pytest.approx(golden["out.nan_ok.aAcc"].item(), rel=1e-6)
    assert round(100 * result["overall_accuracy"], 2) == pytest.approx(golden["out.summary_pct.aAcc"].item(), abs=1e-5)


def test_classes_that_do_not_occur_are_null():
    # class 0 found, 1 only predicted, 2 only labelled, 3 in neither, 4 and 5 confused without a hit
    predictions = [0, 0, 1, 0, 5, 4]
    references = [0, 0, 0, 2, 4, 5]
    result = metrics_from_confusion_matrix(confusion_matrix(predictions, references, 6))
    assert result["per_category_iou"] == [0.5, 0, 0, None, 0, 0]
    assert result["per_category_accuracy"] == [pytest.approx(2 / 3), None, 0, None, 0, 0]
    assert result["per_category_recall"] == result["per_category_accuracy"]
    assert result["per_category_precision"] == [pytest.approx(2 / 3), 0, None, None, 0, 0]
    assert result["per_category_f1"] == [pytest.approx(2 / 3), None, None, None, None, None]
    assert result["mean_iou"] == pytest.approx(0.5 / 5)
    assert result["mean_accuracy"] == pytest.approx(2 / 3 / 4)


def test_result_is_valid_json():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for matrix in (torch.zeros(3, 3), torch.diag(torch.tensor([4, 0, 0]))):
        result = metrics_from_confusion_matrix(matrix)
        assert json.loads(json.dumps(result), parse_constant=refuse) == result
    assert metrics_from_confusion_matrix(torch.zeros(2, 2))["mean_iou"] is None
    assert metrics_from_confusion_matrix(torch.zeros(2, 2))["overall_accuracy"] is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_matrix_equals_a_loop_over_the_pixels(data):
    num_labels = data.draw(st.integers(1, 6))
    ignore_index = data.draw(st.sampled_from([-100, -1, 255, 0]))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6, min_side=0))
    dtype = data.draw(st.sampled_from([np.int64, np.int16, np.uint8]))
    labels = st.integers(0, num_labels - 1)
    # numpy cannot hold a negative ignore value in uint8; such a label map has no ignored pixel
    if ignore_index >= 0 or dtype is not np.uint8:
        labels = labels | st.just(ignore_index)
    references = data.draw(hnp.arrays(dtype, shape, elements=labels))
    predictions = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, num_labels - 1)))
    expected = brute_force(predictions, references, num_labels, ignore_index)
    for convert in (np.asarray, torch.from_numpy, lambda array: array.tolist()):
        matrix = confusion_matrix(convert(predictions), convert(references), num_labels, ignore_index)
        assert matrix.dtype == torch.int64
        assert matrix.tolist() == expected


def test_inputs_are_left_as_they_are(maps):
    predictions, references = maps
    before = predictions.clone(), references.clone()
    confusion_matrix(predictions, references, 3)
    assert torch.equal(predictions, before[0])
    assert torch.equal(references, before[1])


def test_images_of_different_sizes_in_one_batch():
    predictions = [torch.tensor([[0, 1]]), torch.tensor([[1], [1], [0]])]
    references = [np.array([[0, 0]]), np.array([[1], [-100], [0]])]
    assert confusion_matrix(predictions, references, 2).tolist() == [[2, 1], [0, 1]]
    with pytest.raises(ValueError, match="got 2 and 1 images"):
        confusion_matrix(predictions, references[:1], 2)


def test_predictions_at_ignored_pixels_do_not_matter():
    assert confusion_matrix([0, 255, -100], [0, -100, -100], 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([0, 7, 9], [0, 1, 1], r"predictions must be in 0 to 1 \(num_labels=2\), found 7, 9"),
        ([0, -1, 1], [0, 1, 1], "predictions must be in 0 to 1 .* found -1"),
        ([0, 1, 1], [0, 255, 3], r"references must be in 0 to 1 .* found 3, 255.* only ignore_index=-100"),
        ([0, 1, 1], [0, -1, 1], "references must be in 0 to 1 .* found -1"),
        ([0, 1], [0, 1, 1], r"one shape, got \(2,\) and \(3,\)"),
        ([0.0, 1.0], [0, 1], "predictions must hold integer class indices, got float64"),
        (torch.rand(2, 3), torch.zeros(2, 3), "predictions must hold integer class indices, got torch.float32"),
    ],
)
def test_bad_input_is_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(predictions, references, 2)


@pytest.mark.parametrize("num_labels", [0, -2, 2.5, True, "2"])
def test_number_of_classes_must_be_positive(num_labels):
    with pytest.raises(ValueError, match="num_labels must be a positive integer"):
        SegmentationMetrics(num_labels=num_labels)
    with pytest.raises(ValueError, match="num_labels must be a positive integer"):
        confusion_matrix([0], [0], num_labels)


def test_matrix_must_be_square():
    with pytest.raises(ValueError, match=r"\(num_labels, num_labels\), got \(2, 3\)"):
        metrics_from_confusion_matrix(torch.zeros(2, 3))


def test_streaming_equals_one_go(maps):
    predictions, references = maps
    metric = SegmentationMetrics(num_labels=3)
    for prediction, reference in zip(predictions.split(3), references.split(3), strict=True):
        metric.add_batch(predictions=prediction, references=reference)
    assert len(metric) == 4
    streamed = metric.compute()
    assert len(metric) == 0
    assert streamed == metric.compute(predictions=predictions, references=references)
    assert streamed == metrics_from_confusion_matrix(confusion_matrix(predictions, references, 3))
    for prediction, reference in zip(predictions.numpy(), references.numpy(), strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert streamed == metric.compute()


def test_compute_adds_its_own_images_to_those_before(maps):
    predictions, references = maps
    metric = SegmentationMetrics()
    metric.add_batch(predictions=predictions[:1], references=references[:1], num_labels=3)
    result = metric.compute(predictions=predictions[1:], references=references[1:])
    assert result == metric.compute(predictions=predictions, references=references)


def test_memory_does_not_grow_with_the_batches(maps):
    predictions, references = maps
    metric = SegmentationMetrics(num_labels=3)
    metric.add_batch(predictions=predictions, references=references)
    after_one = len(pickle.dumps(metric))
    for _ in range(20):
        metric.add_batch(predictions=predictions, references=references)
    assert len(pickle.dumps(metric)) < after_one + predictions[0].numel()


def test_options_come_when_loading_with_a_batch_or_at_the_end(maps):
    predictions, references = maps
    references = references.clone()
    references[references == -100] = 255
    expected = SegmentationMetrics(num_labels=3, ignore_index=255).compute(
        predictions=predictions, references=references
    )
    metric = SegmentationMetrics()
    metric.add_batch(predictions=predictions, references=references, num_labels=3, ignore_index=255)
    metric.add_batch(predictions=predictions[:0], references=references[:0], num_labels=3)
    assert metric.compute() == expected
    options = {"num_labels": 3, "ignore_index": 255}
    assert SegmentationMetrics().compute(predictions=predictions, references=references, **options) == expected


def test_misuse_is_explained():
    metric = SegmentationMetrics()
    with pytest.raises(ValueError, match="num_labels is not known: pass it to evaluate"):
        metric.add_batch(predictions=[[0]], references=[[0]])
    with pytest.raises(ValueError, match="nothing was added"):
        metric.compute(num_labels=2)
    with pytest.raises(ValueError, match="only one of the two"):
        metric.compute(predictions=[[0]])
    metric.add_batch(predictions=[[0]], references=[[0]])
    with pytest.raises(ValueError, match="num_labels=3 given after batches counted with num_labels=2"):
        metric.add_batch(predictions=[[0]], references=[[0]], num_labels=3)
    with pytest.raises(ValueError, match="ignore_index=0 given after"):
        metric.compute(ignore_index=0)
    assert metric.compute()["mean_iou"] == 1


def test_several_processes_need_torch_distributed():
    metric = SegmentationMetrics(num_labels=2, num_process=2, process_id=1)
    metric.add_batch(predictions=[[0]], references=[[0]])
    with pytest.raises(ValueError, match="num_process=2, but torch"):
        metric.compute()


def test_a_refused_batch_leaves_the_counts_alone():
    metric = SegmentationMetrics(num_labels=2)
    metric.add_batch(predictions=[[0, 1]], references=[[0, 1]])
    with pytest.raises(ValueError, match="found 5"):
        metric.add_batch(predictions=[[5, 1]], references=[[0, 1]])
    assert len(metric) == 1
    assert metric.compute()["mean_iou"] == 1


def test_pickle_keeps_the_counts(maps):
    predictions, references = maps
    metric = SegmentationMetrics(num_labels=3)
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    copy = pickle.loads(pickle.dumps(metric))
    copy.add_batch(predictions=predictions[2:], references=references[2:])
    metric.add_batch(predictions=predictions[2:], references=references[2:])
    assert copy.compute() == metric.compute()


def test_combines_with_itself():
    combined = evaluate.combine([SegmentationMetrics(num_labels=2), SegmentationMetrics(num_labels=3)])
    combined.add_batch(predictions=[[0, 1]], references=[[0, 1]])
    result = combined.compute()
    assert result["segmentation_metrics_0_per_category_iou"] == [1, 1]
    assert result["segmentation_metrics_1_per_category_iou"] == [1, 1, None]


LOAD_SCRIPT = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError(f"the network was asked: {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate, json, numpy as np
metric = evaluate.load(sys.argv[1], num_labels=2)
chip = np.full((1, 64, 64), -100, dtype=np.int64)
chip[:, :32] = 1
metric.add_batch(predictions=np.ones_like(chip), references=chip)
print(json.dumps(metric.compute()))
"""


def test_loads_by_path_offline_in_a_fresh_process(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", LOAD_SCRIPT, str(METRIC_FOLDER)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["per_category_iou"] == [None, 1.0]
    assert result["overall_accuracy"] == 1.0


def run_rank(rank, world_size, folder):
    """Two rounds, of which the first gives rank 0 no chip at all; the results go to a file."""
    init_method = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world_size)
    chips = load_file(folder / "chips.safetensors")
    metric = SegmentationMetrics(num_labels=3)
    if rank > 0:
        metric.add_batch(predictions=chips["predictions"][:3], references=chips["references"][:3])
    first = metric.compute()
    mine = slice(0, 1) if rank == 0 else slice(1, None)
    second = metric.compute(predictions=chips["predictions"][mine], references=chips["references"][mine])
    (folder / f"{rank}.json").write_text(json.dumps([first, second]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_sum_their_counts(tmp_path, maps):
    predictions, references = maps
    save_file({"predictions": predictions, "references": references}, tmp_path / "chips.safetensors")
    mp.spawn(run_rank, args=(2, tmp_path), nprocs=2)
    expected = [
        metrics_from_confusion_matrix(confusion_matrix(predictions[:3], references[:3], 3)),
        metrics_from_confusion_matrix(confusion_matrix(predictions, references, 3)),
    ]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counts_stay_on_the_device(maps):
    predictions, references = (tensor.cuda() for tensor in maps)
    matrix = confusion_matrix(predictions, references, 3)
    assert matrix.device.type == "cuda"
    assert torch.equal(matrix.cpu(), confusion_matrix(*maps, 3))
