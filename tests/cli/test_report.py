# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf report`; tests/training/test_report.py runs it on a finished run."""

import pytest

from tests.command_line import assert_refused, run


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert_refused(capsys, tmp_path, "Expected the folder of a run, found none", "report", tmp_path / "absent")
    assert_refused(capsys, tmp_path, "prithvi-hf finetune` leaves them", "report", tmp_path)


def test_help_names_the_folder(capsys):
    with pytest.raises(SystemExit):
        run("report", "--help")
    assert "output folder of the run" in capsys.readouterr().out
