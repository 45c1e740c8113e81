# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The code that travels to the Hub, and the keys that name it; `tests/test_hub.py` pushes and loads it."""

import re
import sys
from importlib import import_module

from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports

from prithvi_hf import PrithviConfig
from prithvi_hf.models.prithvi.remote_code_prithvi import (
    CUSTOM_PIPELINES,
    IMAGE_PROCESSOR_AUTO_MAP,
    MODEL_AUTO_MAP,
    REGRESSION_AUTO_MAP,
    source_files,
)


REFERENCES = [
    *MODEL_AUTO_MAP.values(),
    *REGRESSION_AUTO_MAP.values(),
    *IMAGE_PROCESSOR_AUTO_MAP.values(),
    *(pipe["impl"] for pipe in CUSTOM_PIPELINES.values()),
]
CODE = {path.name for path in source_files()}


def test_the_mappings_name_classes_that_exist():
    for reference in REFERENCES:
        module, name = reference.split(".")
        assert f"{module}.py" in CODE
        assert getattr(import_module(f"prithvi_hf.models.prithvi.{module}"), name).__name__ == name


def test_the_code_that_travels_needs_no_file_and_no_package_that_stays():
    for path in source_files():
        assert all(f"{name}.py" in CODE for name in get_relative_imports(path)), path
        assert not re.search(r"^\s*from\s+\.\s+import", path.read_text(), flags=re.MULTILINE), path
        outside = set(get_imports(path)) - set(sys.stdlib_module_names)
        assert outside <= {"huggingface_hub", "numpy", "safetensors", "torch", "transformers"}, path


def test_every_class_leads_to_every_file():
    """So that transformers fetches all of them with one, and what was loaded can be pushed again."""
    folder = source_files()[0].parent
    for reference in REFERENCES:
        module = folder / f"{reference.split('.')[0]}.py"
        assert set(get_relative_import_files(module)) | {str(module)} == set(map(str, source_files()))


def test_a_class_registered_for_the_hub_keeps_its_mappings(monkeypatch):
    monkeypatch.setattr(PrithviConfig, "_auto_class", "AutoConfig")
    config = PrithviConfig(auto_map={"AutoConfig": "x.Y"})
    assert config.to_dict()["auto_map"] == {"AutoConfig": "x.Y"}
