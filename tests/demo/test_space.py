# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The folder `demo/`, which becomes a Space."""

import configparser
import re
import runpy

import pytest
import rasterio
import yaml

from tests.docs.pages import ROOT


SPACE = ROOT / "demo"


def test_the_requirements_are_those_of_the_package_and_its_demo():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    texts = settings["options"]["install_requires"], settings["options.extras_require"]["demo"]
    wanted = {line for text in texts for line in text.splitlines() if line}
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == wanted


def test_the_header_names_the_tested_gradio_and_the_file_to_run():
    header = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)[1]
    assert header["sdk"] == "gradio"
    assert header["sdk_version"] == pinned
    assert (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60  # the Hub takes no longer one


def test_options_come_from_the_environment(monkeypatch, tmp_path):
    for name in ("MODEL_ID", "TITLE", "EXAMPLES", "DEVICE", "DTYPE", "MAX_SECONDS", "COLLECTION"):
        monkeypatch.delenv(name, raising=False)
    read = runpy.run_path(str(SPACE / "app.py"))["read_environment"]
    with pytest.raises(ValueError, match="Expected the variable MODEL_ID"):
        read()
    monkeypatch.setenv("MODEL_ID", "tester/floods")
    monkeypatch.setenv("MAX_SECONDS", "90")
    monkeypatch.setenv("EXAMPLES", str(tmp_path))
    monkeypatch.setenv("COLLECTION", "hls")
    options = read()
    assert options.catalog.collection == ("hls",)
    assert (options.model, options.device, options.limits.max_seconds) == ("tester/floods", "auto", 90)
    assert options.examples == tmp_path
    assert (options.host, options.port) == (None, None)  # gradio takes those of the Space


def test_examples_are_scenes_of_floods(tmp_path):
    main = runpy.run_path(str(SPACE / "make_examples.py"))["main"]
    assert main([str(tmp_path), "--size", "64", "80"]) == 0
    files = sorted(tmp_path.iterdir())
    assert [file.stem for file in files] == ["haze", "plain", "river"]
    with rasterio.open(files[0]) as dataset:
        assert (dataset.shape, dataset.count) == ((64, 80), 6)
        assert dataset.descriptions[0] == "BLUE"
