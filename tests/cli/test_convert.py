# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf convert`: what it writes, and one message and nothing written for every error of a user's."""

import json
from pathlib import Path

import pytest
import torch

from prithvi_hf.models.prithvi.modeling_prithvi import PrithviModel
from tests.command_line import assert_refused, run


@pytest.fixture
def checkpoint(tmp_path, golden_dir):
    from safetensors.torch import load_file

    tensors = load_file(golden_dir / "v1_encoder_T1.safetensors")
    torch.save({name[3:]: value for name, value in tensors.items() if name.startswith("sd.")}, tmp_path / "v1.pt")
    return tmp_path / "v1.pt"


def test_convert(checkpoint, tmp_path, capsys):
    settings = ["num_attention_heads=2", "layer_norm_eps=1e-5", "hidden_act=gelu"]
    assert run("convert", checkpoint, tmp_path / "out", "--set", *settings) == 0
    assert "tensors converted" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_attention_heads"] == 2
    assert PrithviModel.from_pretrained(tmp_path / "out").config.hidden_act == "gelu"


def test_convert_refuses(checkpoint, tmp_path, capsys):
    torch.save({"model": Path("a pickle of another class")}, tmp_path / "pickle.pt")
    out = tmp_path / "out"
    assert_refused(capsys, tmp_path, "could run code", "convert", tmp_path / "pickle.pt", out)
    assert_refused(capsys, tmp_path, "none.pt", "convert", tmp_path / "none.pt", out)
    assert_refused(capsys, tmp_path, "hf://owner/name/file", "convert", "hf://owner", out)
    assert_refused(capsys, tmp_path, "NAME=VALUE", "convert", checkpoint, out, "--set", "num_frames")
    assert_refused(capsys, tmp_path, "hidden_size", "convert", checkpoint, out, "--set", "hidden_size=17")
    assert_refused(
        capsys, tmp_path, "num_attention_heads", "convert", checkpoint, out, "--set", "num_atention_heads=2"
    )
    assert_refused(capsys, tmp_path, "new or empty folder", "convert", checkpoint, tmp_path)
