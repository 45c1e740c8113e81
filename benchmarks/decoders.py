# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One step of a Prithvi-EO-2.0-300M with a UNet or a UPerNet: where its time goes, and ours against plain modules.

Run alone by `python -m benchmarks.decoders [--repeats 3]`. 24 layers of width 1024, one frame of 224 px, batch 2,
float32. The plain model is an encoder of `plain_model`'s blocks and the modules of our neck and head on maps in
PyTorch's default layout, those of the UPerNet resized, put side by side and convolved; weights and logits are equal.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from benchmarks.plain_model import PlainBlock, convert_names
from benchmarks.timing import comparison, median_seconds
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.decode_heads_prithvi import PrithviPyramidConvolution, resize


SIZE, BATCH = 224, 2
TOLERANCE = 1e-4
"""Largest difference of the logits over their largest magnitude at which the two are one model."""


class PlainPyramidConvolution(PrithviPyramidConvolution):
    """Resize maps, put them side by side, convolve."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:  # type: ignore[override]  # never one tensor
        """Map `(B, C, H, W)` and smaller ones to `(B, out_channels, H, W)`."""
        return super().forward(torch.cat([resize(feature, maps[0]) for feature in maps], dim=1))


class PlainPyramidModel(nn.Module):
    """Encoder, neck and head of one frame, each layer called after the other.

    Args:
        config (`PrithviConfig`): Of a model with the neck `"pyramid"`.
    """

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        self.layers = config.feature_layers
        ours = PrithviForSemanticSegmentation(config)
        self.register_buffer("positions", ours.prithvi.embeddings.position_embeddings)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.proj = nn.Conv3d(config.num_channels, config.hidden_size, config.tubelet_size, config.tubelet_size)
        self.blocks = nn.ModuleList(
            PlainBlock(config.hidden_size, config.num_attention_heads) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.neck, self.decode_head = ours.neck, ours.decode_head
        for name, module in list(self.decode_head.named_modules()):
            if isinstance(module, PrithviPyramidConvolution):
                plain = PlainPyramidConvolution(module.in_channels, module.out_channels, 3, padding=1, bias=False)
                self.decode_head.set_submodule(name, plain)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits `(B, classes, H, W)` of normalised pixels `(B, 6, 1, H, W)`."""
        rows, columns = (side // self.proj.stride[-1] for side in pixel_values.shape[-2:])
        tokens = self.proj(pixel_values).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        tokens = torch.cat([(self.cls_token + self.positions[:, :1]).expand(len(tokens), -1, -1), tokens], dim=1)
        states = []
        for block in self.blocks:
            tokens = block(tokens)
            states.append(tokens)
        states[-1] = self.norm(states[-1])
        features = self.neck([states[layer].contiguous() for layer in self.layers], (rows, columns))
        logits = self.decode_head([feature.contiguous() for feature in features])
        return nn.functional.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)


def make_models(head: str) -> tuple[PrithviForSemanticSegmentation, PlainPyramidModel]:
    """Ours and the plain model with equal weights.

    Args:
        head (`str`): `"unet"` or `"upernet"`.
    """
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = PrithviConfig(image_size=SIZE, num_frames=1, decode_head=head, classifier_dropout=0.0, **sizes)
    ours, plain = PrithviForSemanticSegmentation(config), PlainPyramidModel(config)
    weights = convert_names({name: tensor for name, tensor in ours.state_dict().items() if name.startswith("prithvi")})
    kept = {name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("prithvi")}
    plain.load_state_dict({**weights, **kept, "positions": plain.positions}, strict=True)
    return ours, plain


def measure_parts(model: PrithviForSemanticSegmentation, pixels: torch.Tensor) -> dict[str, float]:
    """Fractions of a forward pass that encoder, neck and head take.

    Args:
        model (`PrithviForSemanticSegmentation`): In evaluation mode.
        pixels (`torch.Tensor`): A batch.
    """
    parts = {"encoder": model.prithvi, "neck": model.neck, "head": model.decode_head}
    seconds, handles, begin = dict.fromkeys(parts, 0.0), [], {}

    def stop(name: str) -> None:
        seconds[name] += time.perf_counter() - begin[name]

    for name, part in parts.items():
        handles.append(part.register_forward_pre_hook(lambda *_, n=name: begin.update({n: time.perf_counter()})))
        handles.append(part.register_forward_hook(lambda *_, n=name: stop(n)))
    model(pixels)
    for handle in handles:
        handle.remove()
    return {name: value / sum(seconds.values()) for name, value in seconds.items()}


def time_head(head: str, repeats: int) -> list[dict]:
    """Two rows of the table: inference and a training step.

    Args:
        head (`str`): `"unet"` or `"upernet"`.
        repeats (`int`): Timed calls of each contender.

    Raises:
        RuntimeError: They are not the same model.
    """
    ours, plain = make_models(head)
    pixels, labels = torch.randn(BATCH, 6, 1, SIZE, SIZE), torch.randint(0, 2, (BATCH, SIZE, SIZE))
    models: dict[str, nn.Module] = {"ours": ours.eval(), "plain": plain.eval()}
    with torch.inference_mode():
        logits, wanted = ours(pixels).logits, plain(pixels)
        apart = ((logits - wanted).abs().max() / wanted.abs().max()).item()
        if apart > TOLERANCE:
            raise RuntimeError(f"Expected equal logits of both models, found them {apart:.3g} apart.")
        parts = measure_parts(ours, pixels)
        inference = median_seconds({name: (lambda m=m: m(pixels)) for name, m in models.items()}, repeats)
    for model in models.values():
        model.train()
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: ours(pixels, labels=labels).loss,
        "plain": lambda: nn.functional.cross_entropy(plain(pixels), labels),
    }
    training = median_seconds({name: (lambda f=f: f().backward()) for name, f in losses.items()}, repeats)
    shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in parts.items())
    what = f"300M with {head}, {SIZE} px, batch {BATCH}, float32"
    return [
        comparison(f"inference, {what} ({shares})", inference["ours"], inference["plain"], "plain PyTorch module")
        | {"logits_apart": apart, "parts": parts},
        comparison(f"training step, {what}", training["ours"], training["plain"], "plain PyTorch module"),
    ]


def run(repeats: int) -> list[dict]:
    """Measure both heads.

    Args:
        repeats (`int`): Timed calls of each contender.

    Returns:
        `list[dict]`: The rows of the table.
    """
    return [row for head in ("unet", "upernet") for row in time_head(head, repeats)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One step of a 300M model with a UNet or a UPerNet.")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each contender (default 3)")
    for row in run(parser.parse_args().repeats):
        print(f"{row['what']}: {row['ours_ms']:.0f} ms, {row['ratio']:.2f}x")
