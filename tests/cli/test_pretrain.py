# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf pretrain`."""

import pytest

from prithvi_hf import PrithviForPreTraining
from prithvi_hf.cli.__main__ import main
from tests.pretrain_factory import command_line, make_scenes, save_autoencoder


def test_it_runs_the_packaged_recipe(tmp_path):
    scenes, model = make_scenes(tmp_path / "scenes", names=("a", "b")), save_autoencoder(tmp_path / "mae")
    options = {"config": "pretrain", "max_steps": 1, "eval_steps": 1, "save_steps": 1, "dataloader_num_workers": 0}
    options |= {"dataloader_persistent_workers": False, "model": model}
    words = command_line(scenes, tmp_path / "OUT", **options)
    assert main(["pretrain", *words]) == 0
    assert PrithviForPreTraining.from_pretrained(tmp_path / "OUT").config.mask_ratio == 0.75


def test_help_shows_the_main_options_and_all_of_them(capsys):
    for word, shown in (("--help", False), ("--help_all", True)):
        with pytest.raises(SystemExit) as stop:
            main(["pretrain", word])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "--scenes" in text
        assert "prithvi-hf pretrain" in text
        assert ("--adam_epsilon" in text) == shown
        assert "--eval_overlap" not in text


def test_options_of_another_command_are_unknown(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "--scenes", "a", "--output_dir", str(tmp_path), "--class_names", "water"])
    assert stop.value.code == 2
    assert "--class_names" in capsys.readouterr().err
