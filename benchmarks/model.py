# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The model against the original architecture: inference, a training step, and peak memory of the step.

Both have the same weights and see the same pixels; before anything is timed, their logits are compared. Hidden size
768, 224 px, cross entropy of both heads; one frame and 12 layers, or three frames and 6 layers (the crop recipe). The
alternative is `plain_model`: the original's layers, each called after the other in PyTorch's default layout.

Run alone, `python -m benchmarks.model ours 1 2` prints the bytes that one forward and backward pass of one frame,
batch 2, needs above parameters and gradients; `plain` in place of `ours` is the alternative.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.memory import in_fresh_process, peak_of
from benchmarks.plain_model import PlainSegmenter, load_ours
from benchmarks.timing import comparison, median_seconds
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation


SIZE = 224
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.1}
"""Largest difference of the logits over their largest magnitude at which the two are one model."""


@dataclass
class Pair:
    """Ours and the plain model with the same weights, and a batch for them."""

    ours: PrithviForSemanticSegmentation
    plain: PlainSegmenter
    pixel_values: torch.Tensor
    labels: torch.Tensor

    def models(self) -> dict[str, nn.Module]:
        """Both, by name."""
        return {"ours": self.ours, "plain": self.plain}

    def to(self, device: torch.device) -> "Pair":
        """The pair and its batch on a device."""
        return Pair(self.ours.to(device), self.plain.to(device), self.pixel_values.to(device), self.labels.to(device))

    def forwards(self) -> dict[str, Callable[[], torch.Tensor]]:
        """What computes the logits of each."""
        return {
            "ours": lambda: self.ours(self.pixel_values).logits,
            "plain": lambda: self.plain(self.pixel_values),
        }

    def losses(self) -> dict[str, Callable[[], torch.Tensor]]:
        """What computes the training loss of each."""
        return {
            "ours": lambda: self.ours(self.pixel_values, labels=self.labels).loss,
            "plain": lambda: self.plain.loss(self.pixel_values, self.labels),
        }


def make_pair(frames: int, batch_size: int, dtype: torch.dtype = torch.float32) -> Pair:
    """Models of one recipe with random weights, batch normalisation included.

    Args:
        frames (`int`): 1 for the flood recipe's sizes, 3 for those of the crop recipe.
        batch_size (`int`): Images in the batch.
        dtype (`torch.dtype`, defaults to float32): Of weights and pixels.
    """
    torch.manual_seed(0)
    layers, heads = (12, 12) if frames == 1 else (6, 8)
    config = PrithviConfig(num_frames=frames, num_hidden_layers=layers, num_attention_heads=heads)
    ours = PrithviForSemanticSegmentation(config)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, mean in ((module.weight, 1), (module.bias, 0), (module.running_mean, 0)):
                nn.init.normal_(tensor, mean, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    plain = PlainSegmenter(frames, layers, heads, 2, ours.prithvi.embeddings.position_embeddings)
    load_ours(plain, ours.state_dict())
    pixels = torch.randn(batch_size, 6, frames, SIZE, SIZE, dtype=dtype)
    plain.to(dtype).proj.float()  # torch's Conv3d in half precision is wrong on a CPU; the rest runs as it is
    return Pair(ours.to(dtype), plain, pixels, torch.randint(0, 2, (batch_size, SIZE, SIZE)))


@torch.inference_mode()
def difference(pair: Pair) -> float:
    """Largest difference of the logits over their largest magnitude.

    Raises:
        RuntimeError: They are not the same model.
    """
    ours, plain = pair.ours.eval()(pair.pixel_values).logits, pair.plain.eval()(pair.pixel_values)
    found = ((ours - plain).abs().max() / plain.abs().max()).item()
    if found > TOLERANCE[pair.pixel_values.dtype]:
        raise RuntimeError(f"Expected equal logits of both models, found them {found:.3g} apart; nothing was timed.")
    return found


def time_inference(frames: int, batch_size: int, repeats: int) -> dict:
    """One row of the table: a forward pass without gradients.

    Args:
        frames (`int`): As in `make_pair`.
        batch_size (`int`): As there.
        repeats (`int`): Timed calls of each.
    """
    pair = make_pair(frames, batch_size)
    apart = difference(pair)
    with torch.inference_mode():
        calls = {name: lambda model=model: model(pair.pixel_values) for name, model in pair.models().items()}
        seconds = median_seconds(calls, repeats)
    return _row("inference", frames, batch_size, torch.float32, seconds) | {"logits_apart": apart}


def time_bfloat16(frames: int, batch_size: int, repeats: int) -> list[dict]:
    """Two rows of the table: ours with weights in bfloat16 against the plain module in float32 and in bfloat16.

    Args:
        frames (`int`): As in `make_pair`.
        batch_size (`int`): As there.
        repeats (`int`): Timed calls of each.
    """
    half, full = (make_pair(frames, batch_size, dtype) for dtype in (torch.bfloat16, torch.float32))
    apart, pixels = difference(half), half.pixel_values
    models = {"ours": half.ours, "float32": full.plain.eval(), "bfloat16": half.plain}
    with torch.inference_mode():
        seconds = median_seconds({name: lambda model=model: model(pixels) for name, model in models.items()}, repeats)
    return [
        _row("inference", frames, batch_size, torch.bfloat16, {"ours": seconds["ours"], "plain": seconds[name]}, name)
        | {"logits_apart": apart}
        for name in ("float32", "bfloat16")
    ]


def time_training(frames: int, batch_size: int, repeats: int, dtype: torch.dtype = torch.float32) -> dict:
    """One row of the table: forward and backward with both heads, of the plain module in float32.

    Args:
        frames (`int`): As in `make_pair`.
        batch_size (`int`): As there.
        repeats (`int`): Timed calls of each.
        dtype (`torch.dtype`, defaults to float32): Ours under autocast to this one.
    """
    pair = make_pair(frames, batch_size)
    apart = difference(pair)
    for model in pair.models().values():
        model.train()
    losses = pair.losses()

    def step_of_ours() -> None:
        """Forward and backward, as a trainer does it with mixed precision."""
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = losses["ours"]()
        loss.backward()

    calls = {"ours": step_of_ours, "plain": lambda: losses["plain"]().backward()}
    seconds = median_seconds(calls, repeats)
    name = "" if dtype == torch.float32 else "float32"
    return _row("training step", frames, batch_size, dtype, seconds, name) | {"logits_apart": apart}


def measure_memory(frames: int, batch_size: int) -> dict:
    """One row of the table: memory of forward and backward above parameters and gradients, in MB.

    Args:
        frames (`int`): As in `make_pair`.
        batch_size (`int`): As there.
    """
    peaks = {
        name: in_fresh_process("benchmarks.model", name, str(frames), str(batch_size)) / 1e6
        for name in ("ours", "plain")
    }
    return {
        "what": f"peak memory of a training step, {_sizes(frames, batch_size)}, float32",
        "ours_mb": peaks["ours"],
        "alternative_mb": peaks["plain"],
        "alternative": "plain PyTorch module",
        "ratio": peaks["plain"] / peaks["ours"],
    }


def _sizes(frames: int, batch_size: int) -> str:
    """The sizes of a row in words."""
    return f"{frames} frame{'s' * (frames > 1)}, {12 if frames == 1 else 6} layers, batch {batch_size}"


def _row(
    what: str, frames: int, batch_size: int, dtype: torch.dtype, seconds: dict[str, float], plain: str = ""
) -> dict:
    """Figures of one comparison; `plain` is the dtype of the plain module where it is not ours."""
    what = f"{what}, {_sizes(frames, batch_size)}, {str(dtype).removeprefix('torch.')}"
    return comparison(what, seconds["ours"], seconds["plain"], f"plain PyTorch module{plain and ', ' + plain}")


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 by itself."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def run(repeats: int, quick: bool = False) -> list[dict]:
    """Measure everything.

    Args:
        repeats (`int`): Timed calls of each contender in inference; training steps get a third of them.
        quick (`bool`, defaults to `False`): Leave out training of three frames.

    Returns:
        `list[dict]`: The rows of the table.
    """
    steps = max(1, repeats // 3)
    rows = [time_inference(1, 2, repeats), time_inference(3, 1, repeats), time_training(1, 2, steps)]
    if has_bfloat16():
        rows += [*time_bfloat16(1, 2, repeats), *time_bfloat16(3, 1, repeats)]
        rows.append(time_training(1, 2, steps, torch.bfloat16))
    if not quick:
        rows.append(time_training(3, 1, steps))
    return [*rows, measure_memory(1, 2)]


def _measure_here(name: str, frames: int, batch_size: int) -> int:
    """Peak bytes of one training step above parameters and gradients, in this process."""
    pair = make_pair(frames, batch_size)
    loss, model = pair.losses()[name], pair.models()[name].train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) + 0  # written to, so that it is there
    return peak_of(lambda: loss().backward())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bytes that one training step needs above parameters and gradients.")
    parser.add_argument("model", choices=["ours", "plain"])
    parser.add_argument("frames", type=int, choices=[1, 3])
    parser.add_argument("batch_size", type=int)
    options = parser.parse_args()
    print(json.dumps(_measure_here(options.model, options.frames, options.batch_size)))
