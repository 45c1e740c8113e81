# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Run transformers' own model and configuration tests against this package: `make contract`.

The tests come from the source distribution of the installed transformers version, which pip downloads once. They are
unpacked to a temporary folder and never kept in this repository. Usage:

    python tests/transformers_contract.py                        # everything, a table of counts at the end
    python tests/transformers_contract.py -k '*save_load*'       # the tests whose names match
    python tests/transformers_contract.py --sdist FILE_OR_FOLDER # without a network

What the source distribution leaves out of `tests/` is replaced by empty classes: the tests of generation (Prithvi
generates nothing) and those of the exporters.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import types
import unittest
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.testing_utils import torch_device

from prithvi_hf import (
    PrithviBackbone,
    PrithviConfig,
    PrithviForImageClassification,
    PrithviForPixelRegression,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviModel,
)


PACKAGE = "transformers_tests"  # not `tests`: that is the name of this repository's own
CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prithvi_hf"
COMMON_CONFIG_VALUES = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["SomeModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
"""Values other than the default for what every configuration has."""

MODULES_LEFT_OUT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": COMMON_CONFIG_VALUES},
}


class PrithviModelTester:
    """A small configuration and a batch for it, in the form that transformers' tests ask for."""

    options = MappingProxyType({"out_indices": [0, 1]})

    def __init__(self, parent: unittest.TestCase, num_frames: int = 1, patch_size: tuple[int, ...] = (1, 16, 16)):
        self.parent = parent
        self.batch_size = 3
        self.image_size = 32
        self.patch_size: int | list[int] = list(patch_size)
        self.num_frames = num_frames
        self.num_channels = 6 if num_frames == 1 else 3
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.num_labels = 3
        self.is_training = True
        frames, rows, columns = patch_size
        self.seq_length = 1 + num_frames // frames * (self.image_size // rows) * (self.image_size // columns)

    def get_config(self) -> PrithviConfig:
        """The configuration."""
        return PrithviConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            neck_hidden_size=None if self.num_frames == 1 else 16,
            head_hidden_size=16,
            num_labels=self.num_labels,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            **self.options,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[PrithviConfig, dict[str, Any]]:
        """The configuration and a batch: without the dimension of frames where there is only one."""
        frames = [self.num_frames] if self.num_frames > 1 else []
        shape = [self.batch_size, self.num_channels, *frames, self.image_size, self.image_size]
        return self.get_config(), {"pixel_values": torch.rand(shape, device=torch_device)}


class PyramidTester(PrithviModelTester):
    """The same with a neck that takes several layers."""

    options = MappingProxyType({"out_indices": [0, 0, 1, 1], "decode_head": "unet", "unet_channels": [16, 8, 8, 8]})


class PreTrainingTester(PrithviModelTester):
    """The same for the masked autoencoder, whose encoder sees a quarter of the patches."""

    def __init__(self, parent: unittest.TestCase, num_frames: int = 1, patch_size: tuple[int, ...] = (1, 16, 16)):
        super().__init__(parent, num_frames, patch_size)
        self.num_patches = self.seq_length - 1
        self.seq_length = 1 + self.num_patches // 4
        self.patch_size = patch_size[-1]  # as a test reads it that makes noise


class BaselineTester(PrithviModelTester):
    """The same for the baseline, whose hidden states are the maps of its five levels, the first as large as images."""

    def __init__(self, parent: unittest.TestCase, num_frames: int = 1, patch_size: tuple[int, ...] = (1, 16, 16)):
        super().__init__(parent, num_frames, patch_size)
        self.expected_num_hidden_layers = 5
        self.seq_length = self.hidden_size = self.image_size

    def get_config(self) -> PrithviConfig:
        """The configuration."""
        return PrithviConfig(
            architecture="unet",
            image_size=self.image_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            num_labels=self.num_labels,
        )


def find_sdist(cache_dir: Path) -> Path:
    """The source distribution of the installed transformers, downloaded into `cache_dir` unless it is there."""
    sdist = cache_dir / f"transformers-{transformers.__version__}.tar.gz"
    if not sdist.exists():
        print(f"downloading the source distribution of transformers {transformers.__version__} to {cache_dir}")
        requirement = f"transformers=={transformers.__version__}"
        options = ["--no-deps", "--no-binary", "transformers", "--dest", str(cache_dir), "--quiet"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    return sdist


def unpack_tests(sdist: Path, package_dir: Path) -> None:
    """Lay the tests of a source distribution (an archive or an unpacked folder) out as a package."""
    if sdist.is_dir():
        package_dir.symlink_to((sdist / "tests").resolve(), target_is_directory=True)
    else:
        with tarfile.open(sdist) as archive:
            members = [member for member in archive if Path(member.name).parts[1:2] == ("tests",)]
            archive.extractall(package_dir.parent, members=members, filter="data")
        (package_dir.parent / sdist.name.removesuffix(".tar.gz") / "tests").rename(package_dir)


def stand_in_for_missing_modules(package_dir: Path) -> None:
    """Put modules with the names that the tests import where the source distribution has no such file."""
    for name, attributes in MODULES_LEFT_OUT.items():
        if (package_dir / f"{name.replace('.', '/')}.py").exists():
            continue
        parent = types.ModuleType(f"{PACKAGE}.{name.split('.')[0]}")
        parent.__path__ = []
        sys.modules.setdefault(parent.__name__, parent)
        module = types.ModuleType(f"{PACKAGE}.{name}")
        vars(module).update(attributes)
        sys.modules[module.__name__] = module


def import_upstream_tests(package_dir: Path) -> list[types.ModuleType]:
    """Import transformers' common tests of models, configurations and backbones."""
    sys.path.insert(0, str(package_dir.parent))
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(package_dir)]
    sys.modules[PACKAGE] = package
    stand_in_for_missing_modules(package_dir)
    # The module asks for the package `transformers` beside it, which the layout of the archive does not give.
    with mock.patch("transformers.utils.direct_transformers_import", return_value=transformers):
        configuration = importlib.import_module(f"{PACKAGE}.test_configuration_common")
    modeling, backbone = (importlib.import_module(f"{PACKAGE}.test_{one}_common") for one in ("modeling", "backbone"))
    return [modeling, configuration, backbone]


def know_the_model_names() -> None:
    """Let the tests' tables of names know which class has no loss and which ones take classes as labels.

    Only models inside of transformers are in these tables; AutoModel itself does not read them for Prithvi.
    """
    modeling_auto.MODEL_MAPPING_NAMES["prithvi"] = "PrithviModel"
    modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES["prithvi"] = "PrithviBackbone"
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES["prithvi"] = "PrithviForImageClassification"
    modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES["prithvi"] = "PrithviForSemanticSegmentation"


def make_test_cases(
    modeling: types.ModuleType, configuration: types.ModuleType, backbone: types.ModuleType
) -> list[type[unittest.TestCase]]:
    """The test classes, made of transformers' mixins."""

    class PrithviConfigTest(unittest.TestCase):
        def test_config(self) -> None:
            tester = configuration.ConfigTester(self, PrithviConfig, has_text_modality=False, hidden_size=37)
            tester.run_common_tests()

        def test_config_of_a_model(self) -> None:
            values = {"image_size": 32, "patch_size": [1, 8, 8], "num_frames": 2, "num_channels": 3}
            configuration.ConfigTester(self, PrithviConfig, has_text_modality=False, **values).run_common_tests()

    class ContractTest(modeling.ModelTesterMixin):
        test_resize_embeddings = False
        num_frames = 1
        patch_size = (1, 16, 16)

        def setUp(self) -> None:
            self.model_tester = PrithviModelTester(self, self.num_frames, self.patch_size)

        def test_model_get_set_embeddings(self) -> None:
            """Overridden as in every vision model of transformers: the input embedding embeds patches, not words."""
            for model_class in self.all_model_classes:
                model = model_class(self.model_tester.get_config())
                assert isinstance(model.get_input_embeddings(), nn.Conv3d)
                replacement = nn.Conv3d(1, 1, 1)
                model.set_input_embeddings(replacement)
                assert model.get_input_embeddings() is replacement
                assert model.get_output_embeddings() is None

        def _prepare_for_class(self, inputs_dict: dict, model_class: type, return_labels: bool = False) -> dict:
            """Overridden as in every video model of transformers: images may have five dimensions, and labels too."""
            inputs = super()._prepare_for_class(inputs_dict, model_class)
            batch_size, size = self.model_tester.batch_size, self.model_tester.image_size
            rows = torch.arange(size, device=torch_device) % self.model_tester.num_labels
            if return_labels and model_class is PrithviForSemanticSegmentation:
                inputs["labels"] = rows.expand(batch_size, size, size)
            elif return_labels and model_class is PrithviForPixelRegression:
                inputs["labels"] = rows.float().expand(batch_size, size, size)
            elif return_labels and model_class is PrithviForImageClassification:
                inputs["labels"] = torch.zeros(batch_size, dtype=torch.long, device=torch_device)
            return inputs

    class TwoFrames:
        num_frames = 2
        patch_size = (1, 8, 8)

    class PrithviModelTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviModel, PrithviBackbone)

    class PrithviForSemanticSegmentationTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviForSemanticSegmentation,)

    class PyramidTest(PrithviForSemanticSegmentationTest):
        def setUp(self) -> None:
            self.model_tester = PyramidTester(self)

    class PrithviForImageClassificationTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviForImageClassification,)

    class PrithviForPreTrainingTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviForPreTraining,)

        def setUp(self) -> None:
            self.model_tester = PreTrainingTester(self, self.num_frames, self.patch_size)

        def _prepare_for_class(self, inputs_dict: dict, model_class: type, return_labels: bool = False) -> dict:
            """Overridden so that the same patches are hidden in every call."""
            inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
            noise = torch.linspace(1, 0, self.model_tester.num_patches, device=torch_device)
            return inputs | {"noise": noise.expand(len(inputs["pixel_values"]), -1)}

    class PrithviForPixelRegressionTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviForPixelRegression,)

    class BaselineTest(ContractTest, unittest.TestCase):
        all_model_classes = (PrithviForSemanticSegmentation, PrithviForPixelRegression)
        has_attentions = False
        # It has one size, no attention, and refuses to compute its batch normalisation twice.
        test_model_is_small = test_capture_outputs_decorator = None
        test_gradient_checkpointing_enable_disable = test_peft_gradient_checkpointing_enable_disable = None
        test_gradient_checkpointing_backward_compatibility = test_training_gradient_checkpointing = None
        test_enable_input_require_grads_with_gradient_checkpointing = None
        test_training_gradient_checkpointing_use_reentrant_false = None
        test_training_gradient_checkpointing_use_reentrant_true = None

        def setUp(self) -> None:
            self.model_tester = BaselineTester(self, self.num_frames)

    class BaselineTwoFramesTest(TwoFrames, BaselineTest):
        pass

    class PrithviModelTwoFramesTest(TwoFrames, PrithviModelTest):
        pass

    class PrithviForSemanticSegmentationTwoFramesTest(TwoFrames, PrithviForSemanticSegmentationTest):
        pass

    class PrithviBackboneTest(backbone.BackboneTesterMixin, unittest.TestCase):
        all_model_classes = (PrithviBackbone,)
        config_class = PrithviConfig

        def setUp(self) -> None:
            self.model_tester = PrithviModelTester(self)

        def test_config(self) -> None:
            """Overridden: `out_indices` counts the encoder's layers from 0, as terratorch and timm do.

            The test of transformers has the embeddings as layer 0, with the name "stem".
            """
            config = PrithviConfig()
            assert config.stage_names == [f"stage{number}" for number in range(1, config.num_hidden_layers + 1)]
            config = PrithviConfig(out_features=None, out_indices=None)
            assert config.out_features == [config.stage_names[-1]]
            config = PrithviConfig(out_features=["stage1", "stage2"], out_indices=[0, 1])
            assert (config.out_features, config.out_indices) == (["stage1", "stage2"], [0, 1])
            assert PrithviConfig(out_features=["stage1", "stage3"]).out_indices == [0, 2]
            assert PrithviConfig(out_indices=[0, 2]).out_features == ["stage1", "stage3"]
            with pytest.raises(ValueError, match="the same layers"):
                PrithviConfig(out_features=["stage1", "stage2"], out_indices=[0, 2])

    class PrithviForImageClassificationTwoFramesTest(TwoFrames, PrithviForImageClassificationTest):
        pass

    class PrithviForPixelRegressionTwoFramesTest(TwoFrames, PrithviForPixelRegressionTest):
        pass

    class PrithviForPreTrainingTwoFramesTest(TwoFrames, PrithviForPreTrainingTest):
        pass

    return [
        BaselineTest,
        BaselineTwoFramesTest,
        PrithviBackboneTest,
        PrithviConfigTest,
        PrithviModelTest,
        PrithviModelTwoFramesTest,
        PrithviForSemanticSegmentationTest,
        PrithviForSemanticSegmentationTwoFramesTest,
        PrithviForImageClassificationTest,
        PrithviForImageClassificationTwoFramesTest,
        PrithviForPixelRegressionTest,
        PrithviForPixelRegressionTwoFramesTest,
        PrithviForPreTrainingTest,
        PrithviForPreTrainingTwoFramesTest,
        PyramidTest,
    ]


class CountingResult(unittest.TextTestResult):
    """Keeps one outcome a test: a test fails with any of its subtests, and is skipped when one was and none failed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[unittest.TestCase, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        """Judge a test that is over."""
        super().stopTest(test)
        failed, skipped = (
            {getattr(case, "test_case", case) for case, _ in cases}
            for cases in ([*self.failures, *self.errors], self.skipped)
        )
        self.outcomes[test] = "failed" if test in failed else "skipped" if test in skipped else "passed"

    def table(self) -> str:
        """Passed, failed and skipped tests of each class."""
        counts: dict[str, Counter] = {}
        for test, outcome in self.outcomes.items():
            counts.setdefault(type(test).__name__, Counter())[outcome] += 1
        return "\n".join(
            f"{name:45}" + "".join(f"{count[outcome]:5} {outcome}" for outcome in ("passed", "failed", "skipped"))
            for name, count in counts.items()
        )


def main() -> int:
    """Run the tests; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run transformers' own tests against prithvi_hf.")
    parser.add_argument("--sdist", type=Path, help="source distribution of transformers: an archive or a folder")
    parser.add_argument("--cache_dir", type=Path, default=CACHE_DIR, help="where the download is kept")
    parser.add_argument("-k", dest="patterns", action="append", help="run the tests whose names match")
    parser.add_argument("-v", "--verbose", action="store_true", help="show each test, and why one is skipped")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    torch.set_num_threads(1)  # the models are so small that threads would only wait for each other
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        package_dir = Path(folder) / PACKAGE
        unpack_tests(arguments.sdist or find_sdist(arguments.cache_dir), package_dir)
        know_the_model_names()
        loader = unittest.TestLoader()
        if arguments.patterns:
            loader.testNamePatterns = [f"*{pattern.strip('*')}*" for pattern in arguments.patterns]
        cases = make_test_cases(*import_upstream_tests(package_dir))
        suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
        runner = unittest.TextTestRunner(resultclass=CountingResult, buffer=True, verbosity=1 + arguments.verbose)
        result = runner.run(suite)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {torch_device}\n{result.table()}")
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
