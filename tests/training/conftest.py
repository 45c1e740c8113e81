# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips and one finished run, which every test of this folder may read and none may change."""

import shutil

import pytest

from tests.finetune_factory import make_chips, run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small copy of Sen1Floods11."""
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """Output folder of a fresh run of four steps, with a checkpoint after two and after four."""
    output = tmp_path_factory.mktemp("finished") / "OUT"
    run(data, output)
    return output


@pytest.fixture
def output(finished, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "OUT")
