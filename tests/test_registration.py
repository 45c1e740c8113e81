# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What one import of the package makes known, and what a process that is the command leaves out."""

import subprocess
import sys

import pytest


ASK = """
from transformers import AutoConfig, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from datasets.features.features import _FEATURE_TYPES
print(type(AutoConfig.for_model("prithvi")).__name__)
print("geospatial-segmentation" in PIPELINE_REGISTRY.get_supported_tasks(), "GeoTiff" in _FEATURE_TYPES)
"""


def run_python(code, *words):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "from transformers import AutoConfig\n"])
def test_one_import_is_enough_whatever_was_imported_before(first):
    # A word that names the command is not the command.
    assert run_python(f"{first}import prithvi_hf\n{ASK}", "prithvi_hf.cli") == ["PrithviConfig", "True True"]


@pytest.mark.slow
def test_names_are_imported_when_asked_for_in_a_process_that_is_the_command():
    code = (
        "import sys\nsys.argv[0] = '/usr/bin/prithvi-hf'\nimport prithvi_hf\n"
        "print('torch' in sys.modules, 'PrithviConfig' in dir(prithvi_hf))\n"
        "print(prithvi_hf.PrithviConfig().model_type, 'datasets' in sys.modules)\n"
        "try:\n    prithvi_hf.PrithviNone\nexcept AttributeError as error:\n    print(error)\n"
    )
    assert run_python(code) == [
        "False True",
        "prithvi False",
        "module 'prithvi_hf' has no attribute 'PrithviNone'",
    ]


@pytest.mark.slow
def test_a_script_of_a_user_is_not_the_command(tmp_path):
    script = tmp_path / "prithvi-hf.py"
    script.write_text(f"import prithvi_hf\n{ASK}")
    assert (
        run_python(f"import runpy, sys\nsys.argv = [{str(script)!r}]\nrunpy.run_path(sys.argv[0])")[1] == "True True"
    )


def test_registering_again_changes_nothing():
    from transformers import CONFIG_MAPPING

    from prithvi_hf import PrithviConfig
    from prithvi_hf.registration import register_auto_classes

    register_auto_classes()
    assert CONFIG_MAPPING["prithvi"] is PrithviConfig
