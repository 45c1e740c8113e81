# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""An optional peer: terratorch's Prithvi-EO-1.0-100M segmenter, measured where terratorch is installed.

Both encoders have the same weights, and their tokens are compared before anything is timed. What follows the encoder
is **not** the same, as terratorch itself ships neither the original's neck nor its head. The nearest is its
`FCNDecoder`: four times a transposed convolution, a 3x3 convolution, normalisation over channels and GELU, all 256
channels wide (ours: four transposed convolutions 768 wide, then one 3x3 convolution to 256). It has less than half the
multiplications, so each row says how many parameters and multiplications either model has: a ratio here compares two
users' waiting times, not two ways to compute one thing. `model` makes that other comparison.

One frame, random weights, cross entropy of one head: neither model has an auxiliary head here. terratorch's encoder is
asked for its last layer alone, which spares it copies of the others.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import comparison, median_seconds
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_state_dict


BACKBONE, DECODER, DECODER_STEPS = "prithvi_eo_v1_100", "FCNDecoder", 4
BATCH_SIZE = 2
TOLERANCE = 1e-4
"""Largest difference of the encoders' tokens over their largest magnitude at which the two are one encoder."""


@dataclass
class Peers:
    """Ours and terratorch's model, and a batch for them."""

    ours: PrithviForSemanticSegmentation
    terratorch: nn.Module
    pixel_values: torch.Tensor
    labels: torch.Tensor

    def logits(self) -> dict[str, Callable[[], torch.Tensor]]:
        """What computes the logits of each."""
        return {
            "ours": lambda: self.ours(self.pixel_values).logits,
            "terratorch": lambda: self.terratorch(self.pixel_values).output,
        }

    def losses(self) -> dict[str, Callable[[], torch.Tensor]]:
        """What computes the training loss of each."""
        return {
            "ours": lambda: self.ours(self.pixel_values, labels=self.labels).loss,
            "terratorch": lambda: nn.functional.cross_entropy(self.logits()["terratorch"](), self.labels),
        }

    def train(self, mode: bool = True) -> "Peers":
        """Switch both between training and evaluation."""
        self.ours.train(mode)
        self.terratorch.train(mode)
        return self


def make_config(**sizes: int) -> PrithviConfig:
    """The published 100M model for one frame: 224 px, hidden size 768, 12 layers, no auxiliary head.

    Args:
        sizes (`int`): Values that differ from these, for tests.
    """
    return PrithviConfig(**{"num_frames": 1, "num_hidden_layers": 12, "use_auxiliary_head": False} | sizes)


def build_terratorch(config: PrithviConfig) -> nn.Module:
    """Build terratorch's backbone and `FCNDecoder` of a configuration's sizes, with random weights, and no download.

    Args:
        config (`PrithviConfig`): One frame, patches of 16 pixels, sides that are multiples of 32.
    """
    from terratorch.models import EncoderDecoderFactory

    return EncoderDecoderFactory().build_model(
        task="segmentation",
        backbone=BACKBONE,
        backbone_pretrained=False,
        backbone_num_frames=config.num_frames,
        backbone_img_size=config.image_size,
        backbone_embed_dim=config.hidden_size,
        backbone_depth=config.num_hidden_layers,
        backbone_num_heads=config.num_attention_heads,
        backbone_out_indices=[config.num_hidden_layers - 1],
        decoder=DECODER,
        decoder_channels=config.head_hidden_size,
        decoder_num_convs=DECODER_STEPS,
        head_dropout=config.classifier_dropout,
        num_classes=config.num_labels,
    )


def make_peers(config: PrithviConfig, batch_size: int = BATCH_SIZE) -> Peers:
    """Both models, with terratorch's random encoder in ours.

    Args:
        config (`PrithviConfig`): As for `build_terratorch`.
        batch_size (`int`, defaults to 2): Images in the batch.
    """
    torch.manual_seed(0)
    ours, terratorch = PrithviForSemanticSegmentation(config), build_terratorch(config)
    ours.prithvi.load_state_dict(convert_state_dict(terratorch.encoder.state_dict(), config))
    pixels = torch.randn(batch_size, config.num_channels, config.num_frames, config.image_size, config.image_size)
    labels = torch.randint(0, config.num_labels, (batch_size, config.image_size, config.image_size))
    return Peers(ours, terratorch, pixels, labels)


@torch.inference_mode()
def check(peers: Peers) -> float:
    """Largest difference of the encoders' tokens over their largest magnitude.

    Args:
        peers (`Peers`): Set to evaluation.

    Raises:
        RuntimeError: The encoders differ, or the logits have other shapes.
    """
    peers.train(False)
    ours = peers.ours.prithvi(peers.pixel_values).last_hidden_state
    theirs = peers.terratorch.encoder(peers.pixel_values)[-1]
    found = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if found > TOLERANCE:
        raise RuntimeError(f"Expected equal tokens of both encoders, found them {found:.3g} apart; nothing was timed.")
    shapes = {name: tuple(call().shape) for name, call in peers.logits().items()}
    if shapes["ours"] != shapes["terratorch"]:
        raise RuntimeError(f"Expected logits of one shape, found {shapes}; nothing was timed.")
    return found


@torch.inference_mode()
def multiplications(call: Callable[[], object]) -> int:
    """Multiplications of matrix products and convolutions in a call, attention included.

    Args:
        call (`Callable`): A forward pass.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops() // 2


def measure_sizes(peers: Peers) -> dict[str, int]:
    """Parameters of both models, and the multiplications of one image by their layers called one after the other.

    Args:
        peers (`Peers`): Set to evaluation; ours is counted without the fused upsampling, and gets it back.
    """
    peers.train(False).ours.set_fused_upsampling(False)
    sizes = {}
    for name, call in peers.logits().items():
        key = "ours" if name == "ours" else "alternative"
        sizes[f"{key}_parameters"] = sum(weight.numel() for weight in getattr(peers, name).parameters())
        sizes[f"{key}_multiplications"] = multiplications(call) // len(peers.pixel_values)
    peers.ours.set_fused_upsampling(True)
    return sizes


def time_inference(peers: Peers, repeats: int) -> dict[str, float]:
    """Median seconds of a forward pass without gradients, by name.

    Args:
        peers (`Peers`): Set to evaluation.
        repeats (`int`): Timed calls of each.
    """
    peers.train(False)
    with torch.inference_mode():
        return median_seconds(peers.logits(), repeats)


def time_training(peers: Peers, repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward, by name.

    Args:
        peers (`Peers`): Set to training.
        repeats (`int`): Timed calls of each.
    """
    calls = {name: lambda loss=loss: loss().backward() for name, loss in peers.train().losses().items()}
    return median_seconds(calls, repeats)


def _row(what: str, config: PrithviConfig, seconds: dict[str, float], sizes: dict[str, int]) -> dict:
    """Figures of one comparison."""
    heads = (
        f"{DECODER} ({DECODER_STEPS} steps, {config.head_hidden_size} wide), another head: "
        f"{sizes['alternative_parameters'] / 1e6:.1f} M parameters and "
        f"{sizes['alternative_multiplications'] / 1e9:.1f} G multiplications an image, ours "
        f"{sizes['ours_parameters'] / 1e6:.1f} M and {sizes['ours_multiplications'] / 1e9:.1f} G layer by layer"
    )
    what = f"{what}, {config.image_size} px, 1 frame, {config.num_hidden_layers} layers, one head"
    peer = f"terratorch {version('terratorch')}: {BACKBONE} with {heads}"
    return comparison(f"{what}, batch {BATCH_SIZE}, float32", seconds["ours"], seconds["terratorch"], peer) | sizes


def why_unavailable() -> str | None:
    """Why terratorch cannot be measured, in one line; None where it can."""
    if find_spec("terratorch") is None:
        return "terratorch is not installed (`pip install terratorch`)"
    try:
        importlib.import_module("terratorch")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # a build that does not fit torch's
        reason = " ".join(str(error).split())
        return f"terratorch is installed, but importing it raised {type(error).__name__}: {reason}"
    return None


def run(repeats: int, quick: bool = False, **sizes: int) -> list[dict]:
    """Measure terratorch against ours, where it is there; otherwise say on standard error why not.

    Args:
        repeats (`int`): Timed calls of each contender in inference; training steps get a third of them.
        quick (`bool`, defaults to `False`): Leave out the training step.
        sizes (`int`): As for `make_config`, for tests.

    Returns:
        `list[dict]`: The rows of the table, none without terratorch.
    """
    reason = why_unavailable()
    if reason:
        print(f"No comparison with terratorch: {reason}.", file=sys.stderr)
        return []
    config = make_config(**sizes)
    peers = make_peers(config)
    facts = {"tokens_apart": check(peers)} | measure_sizes(peers)
    rows = [_row("inference", config, time_inference(peers, repeats), facts)]
    if not quick:
        rows.append(_row("training step", config, time_training(peers, max(1, repeats // 3)), facts))
    return rows
