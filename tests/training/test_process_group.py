# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""No program ends as a member of a process group, or leaves it while its wrapped model lives.

With gloo the one aborts now and then, the other hangs. `prithvi-hf evaluate` is watched in tests/cli/test_evaluate.py.
"""

import pytest
import torch.distributed

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.decode_heads_prithvi import HEADS
from prithvi_hf.training.process_group import has_unused_parameters, leave_process_group
from tests.finetune_factory import HEADS as SMALL_HEADS
from tests.finetune_factory import SIZES


@pytest.mark.slow
def test_training_leaves_the_group(trained_by_two):
    assert trained_by_two.printed.count("2 processes: left") == 2
    assert trained_by_two.printed.count("wrapped 1 models, left with 0") == 2
    warnings = [
        line for line in trained_by_two.printed.splitlines() if "Warning" in line and "<frozen abc>" not in line
    ]
    assert warnings == []  # but for that of the watching itself, which looks at every object


def test_leaving(tmp_path):
    leave_process_group()  # a member of none
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    leave_process_group()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("head", HEADS)
def test_a_model_says_whether_all_its_parameters_are_trained(head):
    options = {"unet": {"neck": "pyramid"}, "upernet": {"neck": "token_map"}, "transpose_fcn": {"neck": "token_map"}}
    asked = [{"out_indices": [0] * (1 if head == "transpose_fcn" else 4)}] * (head in ("upernet", "transpose_fcn"))
    for layers in ({}, *asked):
        sizes = {**SIZES, **SMALL_HEADS, "num_frames": 1, "num_hidden_layers": 4, "image_size": 64}
        model = PrithviForSemanticSegmentation(
            PrithviConfig(**sizes, decode_head=head, **options.get(head, {}), **layers)
        )
        model(torch.rand(2, 6, 1, 64, 64), labels=torch.randint(2, (2, 64, 64))).loss.backward()
        unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert has_unused_parameters(model) == bool(unused) == bool(layers)


def test_gradients_of_a_batch_of_one_chip_have_the_strides_of_their_parameters():
    model = PrithviForSemanticSegmentation(PrithviConfig(**SIZES, **SMALL_HEADS, num_frames=1))
    model(torch.rand(1, 6, 1, 32, 32), labels=torch.randint(2, (1, 32, 32))).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name
