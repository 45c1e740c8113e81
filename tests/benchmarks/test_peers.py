# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of the runtimes, with models that take no time; their figures are never tested."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch

from benchmarks import model, peers
from benchmarks.plain_model import PlainSegmenter, load_ours
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation


RUNTIMES = [name for name in ("openvino", "onnxruntime", "onnxscript") if find_spec(name) is None]


@pytest.fixture
def pair():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_hidden_size": 256}
    ours = PrithviForSemanticSegmentation(PrithviConfig(num_frames=1, image_size=32, neck_hidden_size=32, **sizes))
    plain = PlainSegmenter(1, 1, 2, 2, ours.prithvi.embeddings.position_embeddings)
    load_ours(plain, ours.state_dict())
    return model.Pair(ours, plain, torch.randn(2, 6, 1, 32, 32), torch.zeros(2, 32, 32))


@pytest.mark.slow
@pytest.mark.skipif(bool(RUNTIMES), reason=f"{', '.join(RUNTIMES)} not installed (extra peers)")
def test_every_runtime_is_compared_and_timed(pair, monkeypatch):
    monkeypatch.setattr(peers, "trace_graph", partial(peers.trace_graph, fixed_size=True))  # in a third of the time
    rows = {row["what"].removesuffix(", 1 frame, batch 2"): row for row in peers.measure(1, 1, pair)}
    names = {"OpenVINO float32", "ONNX Runtime float32", "PyTorch float32"}
    assert {f"{name}, {model}" for name in names for model in ("plain", "ours")} < rows.keys()
    for name, row in rows.items():
        assert row["right"], name
        assert row["class_agreement"] > 0.9
        assert row["ms"] * row["ratio_to_plain"] == pytest.approx(rows[peers.PLAIN]["ms"])
    assert peers.tabulate(list(rows.values())).count("\n") == len(rows) + 1


def test_a_runtime_that_computes_something_else_is_marked(pair, monkeypatch):
    wrong = lambda pair, dtypes: [("OpenVINO bfloat16, plain", torch.bfloat16, lambda: -pair.plain(pair.pixel_values))]  # noqa: E731
    monkeypatch.setattr(peers, "convert_plain", wrong)
    monkeypatch.setattr(peers, "export_ours", lambda pair, dtypes: [])
    rows = peers.measure(1, 1, pair)
    assert [row["what"] for row in rows if not row["right"]] == ["OpenVINO bfloat16, plain, 1 frame, batch 2"]
    [line] = [line for line in peers.tabulate(rows).splitlines() if "WRONG" in line]
    assert "OpenVINO bfloat16, plain" in line
    assert all(row["ratio_to_openvino"] > 0 for row in rows)


def test_what_is_not_installed_is_said_on_one_line(monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "openvino" else True)
    monkeypatch.setattr(peers, "measure", lambda frames, repeats: [{"frames": frames}])
    assert peers.run(1) == [{"frames": 1}, {"frames": 3}]
    assert capsys.readouterr().err == "No rows of runtimes that need openvino: `pip install prithvi_hf[peers]`.\n"


def test_the_processor_is_named_with_its_matrix_units():
    described = peers.describe_cpu()
    assert f"{torch.get_num_threads()} threads" in described
    assert ("amx_bf16" in described) != ("no AMX" in described)
