# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Test-time augmentation: the mean of a model's answers to a tile turned and mirrored, each brought back."""

from collections.abc import Callable

import torch


AUGMENTATIONS = ("none", "d4")
Symmetry = tuple[int, bool]
"""Quarter turns counter-clockwise, and whether columns are mirrored before them."""


def symmetries(augmentation: str, height: int, width: int) -> tuple[Symmetry, ...]:
    """Give the symmetries of a tile, the tile as it is first.

    Args:
        augmentation: "none", or "d4" for all that leave the tile's shape as it is.
        height: Rows of the tile.
        width: Columns of the tile.

    Returns:
        One for "none"; for "d4" the eight of a square, and four where the tile is none.

    Raises:
        ValueError: If there is no such augmentation.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"Expected an augmentation among {', '.join(AUGMENTATIONS)}, found {augmentation!r}.")
    if augmentation == "none":
        return ((0, False),)
    turns = range(4) if height == width else (0, 2)
    return tuple((turn, mirrored) for mirrored in (False, True) for turn in turns)


def apply_symmetry(values: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """Mirror and turn.

    Args:
        values: (..., height, width).
        symmetry: Which one.

    Returns:
        The same values elsewhere.
    """
    turns, mirrored = symmetry
    return torch.rot90(values.flip(-1) if mirrored else values, turns, (-2, -1))


def undo_symmetry(values: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """Bring back what `apply_symmetry` moved.

    Args:
        values: (..., height, width).
        symmetry: Which one was applied.

    Returns:
        Every value where it was.
    """
    turns, mirrored = symmetry
    values = torch.rot90(values, -turns, (-2, -1))
    return values.flip(-1) if mirrored else values


def augmented_logits(
    forward: Callable[[torch.Tensor], torch.Tensor], pixel_values: torch.Tensor, augmentation: str
) -> torch.Tensor:
    """Give the mean logits over the symmetries of the tiles.

    Args:
        forward: From pixel values to logits (B, num_labels, h, w).
        pixel_values: (B, C, T, h, w).
        augmentation: "none" or "d4".

    Returns:
        (B, num_labels, h, w) in float32 or wider; for "none" what `forward` gives.

    Raises:
        ValueError: If there is no such augmentation.
    """
    others = symmetries(augmentation, *pixel_values.shape[-2:])[1:]
    logits = forward(pixel_values)
    if not others:
        return logits
    total = logits.to(torch.promote_types(logits.dtype, torch.float32))
    for symmetry in others:
        total = total + undo_symmetry(forward(apply_symmetry(pixel_values, symmetry).contiguous()), symmetry)
    return total / (1 + len(others))


__all__ = ["AUGMENTATIONS", "apply_symmetry", "augmented_logits", "symmetries", "undo_symmetry"]
