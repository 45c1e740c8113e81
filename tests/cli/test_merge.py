# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf merge`: one plain folder, or a message and nothing. tests/behaviour/test_adapters.py has whole runs."""

import pytest

from tests.command_line import assert_refused
from tests.scene_factory import save_model


def test_a_folder_that_is_no_adapter_is_refused_and_nothing_is_written(tmp_path, capsys):
    whole = save_model(tmp_path / "whole")
    assert_refused(capsys, tmp_path, "Expected an adapter, found none in", "merge", whole, tmp_path / "merged")


@pytest.mark.parametrize("name", ["nowhere/at/all", ""])
def test_a_name_that_is_no_model_is_refused(tmp_path, capsys, name):
    assert_refused(capsys, tmp_path, "model", "merge", name, tmp_path / "merged")
