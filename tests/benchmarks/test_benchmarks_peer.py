# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The optional comparison with terratorch: what is said without it, and with it rows of tiny models."""

import sys

import pytest
import torch
from torch import nn

from benchmarks import terratorch_peer


TINY = {"image_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_hidden_size": 8}


def test_without_terratorch_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(terratorch_peer, "find_spec", lambda name: None)
    monkeypatch.setattr(terratorch_peer, "make_peers", lambda config: pytest.fail("a model was built"))
    assert terratorch_peer.run(repeats=3) == []
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "No comparison with terratorch: terratorch is not installed (`pip install terratorch`)."
    ]


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError", "OSError", "AttributeError"])
def test_a_broken_terratorch_is_named_on_one_line(error, tmp_path, monkeypatch, capsys):
    """As where torchvision's build does not fit torch's: installed, and of no use."""
    package = tmp_path / "terratorch"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {error}('operator x\\ndoes not exist')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "terratorch", raising=False)
    assert terratorch_peer.run(repeats=1) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"importing it raised {error}: operator x does not exist.")


def test_multiplications_are_counted():
    layer, pixels = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 4, 4)
    assert terratorch_peer.multiplications(lambda: layer(pixels)) == 2 * 4 * 4 * 3 * 5 * 9


def test_multiplications_of_attention_are_counted():
    query = torch.zeros(1, 2, 7, 4)
    call = lambda: nn.functional.scaled_dot_product_attention(query, query, query)  # noqa: E731
    assert terratorch_peer.multiplications(call) == 2 * 2 * 7 * 7 * 4


def test_the_default_sizes_are_the_published_ones():
    config = terratorch_peer.make_config()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.num_frames, config.image_size, config.head_hidden_size) == (1, 224, 256)
    assert not config.use_auxiliary_head


@pytest.mark.parametrize("quick", [True, False])
def test_rows_of_tiny_models(quick):
    pytest.importorskip("terratorch")
    rows = terratorch_peer.run(repeats=1, quick=quick, **TINY)
    assert [row["what"].split(",")[0] for row in rows] == ["inference", "training step"][: 1 if quick else 2]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["alternative_ms"] / row["ours_ms"])
        assert row["alternative"].startswith("terratorch ")
        assert "FCNDecoder" in row["alternative"]
        assert min(row[f"{side}_parameters"] for side in ("ours", "alternative")) > 0
        assert min(row[f"{side}_multiplications"] for side in ("ours", "alternative")) > 0


def test_encoders_that_differ_are_not_timed():
    pytest.importorskip("terratorch")
    peers = terratorch_peer.make_peers(terratorch_peer.make_config(**TINY))
    assert terratorch_peer.check(peers) < terratorch_peer.TOLERANCE
    nn.init.normal_(peers.ours.prithvi.layers[0].mlp.fc1.weight)
    with pytest.raises(RuntimeError, match=r"found them .* apart; nothing was timed"):
        terratorch_peer.check(peers)
