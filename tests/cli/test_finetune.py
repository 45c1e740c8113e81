# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf finetune`: the options of examples/finetune.py, and its errors under the command's name."""

import json

import pytest

from prithvi_hf.cli.__main__ import main
from prithvi_hf.training import finetune
from tests.finetune_factory import command_line, make_chips


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


def test_a_run_of_the_command(data, tmp_path):
    words = command_line(data, tmp_path / "OUT", max_steps=2, test_splits="bolivia")
    assert main(["finetune", *words]) == 0
    assert json.loads((tmp_path / "OUT" / "all_results.json").read_text())["bolivia_mean_iou"] >= 0
    assert (tmp_path / "OUT" / "README.md").exists()


def test_bad_options_end_with_one_message(tmp_path, capsys):
    assert main(["finetune", "--config", "absent.yaml", "--output_dir", str(tmp_path / "OUT")]) == 2
    assert capsys.readouterr().err.startswith("prithvi-hf finetune: error: Expected a YAML file or one of the recipes")
    assert not (tmp_path / "OUT").exists()


def test_help_shows_what_matters_first_and_help_all_the_rest(capsys):
    pages = []
    for word in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as caught:
            main(["finetune", word])
        assert caught.value.code == 0
        pages.append(capsys.readouterr().out)
        assert pages[-1].startswith("usage: prithvi-hf finetune [--config FILE ...]")
    options, every = ({word for word in page.split() if word.startswith("--")} for page in pages)
    assert options >= {"--dataset", "--neck", "--eval_window", "--lr_scheduler_type", "--early_stopping_patience"}
    assert 40 <= len(options) <= 80
    assert options < every
    assert {"--deepspeed", "--focal_gamma", "--adam_beta1", "--published", "--num_hidden_layers"} <= every - options
    assert pages[0].index("the data:") < pages[0].index("the training:") < pages[0].index("evaluation and results:")


def test_a_fault_of_the_training_keeps_its_traceback(tmp_path, capsys, monkeypatch):
    def fail(run):
        raise ValueError("a fault deep inside")

    monkeypatch.setattr(finetune, "setup", lambda recipe: finetune.Run(recipe, trainer=None, splits={}))
    monkeypatch.setattr(finetune, "train", fail)
    assert main(["finetune", "--output_dir", str(tmp_path / "OUT"), "--use_cpu"]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "a fault deep inside" in printed
