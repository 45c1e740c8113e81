# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The fused operator by itself: tiles and phases against the two convolutions that they stand for."""

import pytest
import torch
from torch import nn

from prithvi_hf.models.prithvi.winograd_prithvi import (
    TiledUpsampling,
    border_sums,
    fuse_kernels,
    phase_kernels,
    plan_products,
)
from tests.golden import assert_matches


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("widths", [(3,), (3, 4)])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (5, 3)])
def test_the_operator_by_itself(size, widths, tiled):
    """Tiles and phases against the two convolutions, at sizes that no tile fits."""
    torch.manual_seed(0)
    pixels = torch.randn(2, *size, 4, 5, dtype=torch.float64, requires_grad=True)
    transposed = nn.ConvTranspose2d(5, 6, 2, 2).double()
    convolution = nn.Conv2d(6, sum(widths), 3, padding=1, bias=False).double()
    norm = nn.LayerNorm(5, dtype=torch.float64)
    activated = (
        nn.functional.gelu(norm(pixels)).unflatten(3, (2, 2)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    )
    expected = convolution(transposed(activated)).split(widths, dim=1)
    products = fuse_kernels(transposed.weight, convolution.weight)
    borders = border_sums(convolution.weight, transposed.bias)
    plan = (torch.float64, tiled)
    maps = TiledUpsampling.apply(pixels, norm.weight, norm.bias, norm.eps, products, borders, widths, plan)
    parameters = [pixels, *transposed.parameters(), *convolution.parameters(), *norm.parameters()]
    weights = [torch.randn_like(part) for part in expected]
    wanted = torch.autograd.grad(expected, parameters, weights, retain_graph=True)
    found = torch.autograd.grad(maps, parameters, [weight.permute(0, 2, 3, 1) for weight in weights])
    for ours, theirs in zip([m.permute(0, 3, 1, 2) for m in maps], expected, strict=True):
        assert_matches(ours, theirs, 1e-13)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_matches(ours, theirs, 1e-12)
    kernels, padded = phase_kernels(products), nn.functional.pad(activated, (1, 1, 1, 1))
    corner = nn.functional.conv2d(padded, kernels).unflatten(1, (2, 2, -1))[:, 1, 1, :, 1:, 1:]
    without_bias = nn.functional.conv_transpose2d(activated, transposed.weight, stride=2)
    assert_matches(corner, convolution(without_bias)[..., 1::2, 1::2], 1e-12)


BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("capabilities", "of_bfloat16", "of_float16"),
    [
        ({"amx_bf16": True, "amx_fp16": True, "avx512_bf16": True}, (BFLOAT16, False), (FLOAT16, False)),
        ({"amx_bf16": True, "amx_fp16": False, "avx512_bf16": True}, (BFLOAT16, False), (FLOAT32, True)),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_fp16": True}, (BFLOAT16, True), (FLOAT32, True)),
        ({"architecture": "aarch64", "bf16": True, "fp16_arith": True}, (BFLOAT16, True), (FLOAT32, True)),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, (FLOAT32, True), (FLOAT32, True)),
        ({}, (FLOAT32, True), (FLOAT32, True)),
    ],
)
def test_each_processor_has_its_way_with_half_precision(capabilities, of_bfloat16, of_float16):
    assert plan_products(BFLOAT16, capabilities) == of_bfloat16
    assert plan_products(FLOAT16, capabilities) == of_float16
