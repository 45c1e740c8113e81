# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From pixels to tokens: the patch embedding and the fixed sine-cosine positions of Prithvi."""

import torch
from torch import nn

from .configuration_prithvi import PrithviConfig


def _sincos_1d(size: int, length: int) -> torch.Tensor:
    """Sine and cosine of positions 0 to `length - 1` at `size / 2` frequencies: `(length, size)`, float64."""
    frequencies = 10000.0 ** (torch.arange(size // 2, dtype=torch.float64, device="cpu") / -(size / 2))
    angles = torch.outer(torch.arange(length, dtype=torch.float64, device="cpu"), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_position_table(hidden_size: int, grid_size: tuple[int, int, int]) -> torch.Tensor:
    """The fixed 3-D sine-cosine position table of Prithvi, class token (all zeros) first.

    Channels are split 6/16 to the column, 6/16 to the row, 4/16 to the frame, in this order; tokens run over columns
    first, then rows, then frames. Pretrained weights rely on both. It is made on the CPU, in float64, which not every
    device has; also while a model is being built on the meta device. The first generation computed its frequencies in
    float32; the difference is below 1e-6.

    Args:
        hidden_size (`int`): Width of the table, a multiple of 16.
        grid_size (`tuple[int, int, int]`): Frames, rows and columns of tokens.

    Returns:
        `torch.FloatTensor` of shape `(1, 1 + frames * rows * columns, hidden_size)`, on the CPU.
    """
    frames, rows, columns = grid_size
    parts = [
        _sincos_1d(hidden_size // 16 * 6, columns)[None, None],
        _sincos_1d(hidden_size // 16 * 6, rows)[None, :, None],
        _sincos_1d(hidden_size // 16 * 4, frames)[:, None, None],
    ]
    table = torch.cat([part.expand(frames, rows, columns, -1) for part in parts], dim=-1)  # (T, h, w, E)
    return nn.functional.pad(table.reshape(1, -1, hidden_size), (0, 0, 1, 0)).float()


class PrithviPatchEmbeddings(nn.Conv3d):
    """The 3-D convolution of non-overlapping patches; in half precision, the matrix product that it is.

    torch 2.13's half-precision `Conv3d` on a CPU (oneDNN) returns wrong values for 1x16x16 patches, off by as much as
    the largest value. In float32 the convolution stays: it adds in the original's order, and one ReLU of the
    reference values sits so close to zero that another order flips it.
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to `(B, frames * rows * columns, hidden_size)`; an indivisible border is dropped."""
        half = pixel_values.dtype in (torch.float16, torch.bfloat16)
        if half or torch.is_autocast_enabled(pixel_values.device.type):
            return self._matrix_product(pixel_values)
        return super().forward(pixel_values).flatten(2).transpose(1, 2)

    def _matrix_product(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The same product without a convolution."""
        frames, rows, columns = self.kernel_size
        grid = [size // patch for size, patch in zip(pixel_values.shape[2:], self.kernel_size, strict=True)]
        cropped = pixel_values[:, :, : grid[0] * frames, : grid[1] * rows, : grid[2] * columns]
        patches = cropped.reshape(*cropped.shape[:2], grid[0], frames, grid[1], rows, grid[2], columns)
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # (B, T' h w, C t p q)
        return nn.functional.linear(patches, self.weight.flatten(1), self.bias)

    @torch.no_grad()
    def select_bands(self, positions: list[int | None]) -> None:
        """Take the kernels of other bands, in place.

        Args:
            positions (`list[int | None]`): For each band the channel whose kernels it gets, or None for the mean of
                the kernels of all channels.
        """
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        mean = self.weight.mean(dim=1, keepdim=True, dtype=dtype).to(self.weight.dtype)  # (E, 1, t, p, q)
        index = [self.in_channels if position is None else position for position in positions]
        kernels = torch.cat([self.weight, mean], dim=1)
        kernels = kernels.index_select(1, torch.tensor(index, device=kernels.device))
        self.weight = nn.Parameter(kernels, requires_grad=self.weight.requires_grad)
        self.in_channels = len(positions)


class PrithviEmbeddings(nn.Module):
    """Patch embedding, class token and fixed 3-D sine-cosine positions."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        if config.hidden_size % 16 or config.hidden_size < 16:
            raise ValueError(
                "Expected a hidden_size that is a multiple of 16 (3-D sine-cosine positions), found "
                f"{config.hidden_size}."
            )
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = PrithviPatchEmbeddings(
            config.num_channels, config.hidden_size, kernel_size=config.tubelet_size, stride=config.tubelet_size
        )
        # On the device and in the dtype of the weights. from_pretrained loses it, and _init_weights sets it again.
        table = sincos_position_table(config.hidden_size, config.grid_size).to(self.cls_token)
        self.register_buffer("position_embeddings", table, persistent=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self._kept_positions: tuple[tuple, torch.Tensor] | None = None

    def __getstate__(self) -> dict:
        """What a copy or a pickle holds: all but the table that is kept."""
        return {**super().__getstate__(), "_kept_positions": None}

    def _positions(self, grid_size: tuple[int, int, int]) -> torch.Tensor:
        """`interpolate_positions`, which is not repeated while images keep their size."""
        table = self.position_embeddings
        as_configured = tuple(grid_size) == self.config.grid_size
        if as_configured or torch.compiler.is_compiling() or table.is_inference():  # the last has no version
            return self.interpolate_positions(grid_size)
        key = (tuple(grid_size), self.config.grid_size, table.data_ptr(), table._version, table.dtype, table.device)
        kept = self._kept_positions
        if kept is None or kept[0] != key:
            with torch.inference_mode(False):  # the next to want it may be training
                kept = (key, self.interpolate_positions(grid_size))
            self._kept_positions = kept
        return kept[1]

    def interpolate_positions(self, grid_size: tuple[int, int, int]) -> torch.Tensor:
        """Position table for any grid of tokens.

        As terratorch does for the second generation: a new number of frames is computed afresh, new rows and columns
        are interpolated from the configured ones, bicubically with `align_corners=True`.

        Args:
            grid_size (`tuple[int, int, int]`): Frames, rows and columns of tokens.

        Returns:
            `torch.Tensor` of shape `(1, 1 + frames * rows * columns, hidden_size)`.
        """
        frames, rows, columns = self.config.grid_size
        if tuple(grid_size) == (frames, rows, columns):
            return self.position_embeddings
        table = self.position_embeddings.float()
        if grid_size[0] != frames:
            table = sincos_position_table(self.config.hidden_size, (grid_size[0], rows, columns)).to(table.device)
        if tuple(grid_size[1:]) != (rows, columns):
            maps = table[0, 1:].reshape(grid_size[0], rows, columns, -1).permute(0, 3, 1, 2)  # (T, E, h, w)
            maps = nn.functional.interpolate(maps, size=grid_size[1:], mode="bicubic", align_corners=True)
            table = torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1])], dim=1)
        return table.to(self.position_embeddings.dtype)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to tokens `(B, 1 + frames * rows * columns, hidden_size)`.

        A border narrower than a patch is dropped, as in the original.

        Raises:
            ValueError: A dimension is smaller than one patch.
        """
        if any(size < patch for size, patch in zip(pixel_values.shape[2:], self.config.tubelet_size, strict=True)):
            raise ValueError(
                f"Expected at least one patch of {self.config.tubelet_size} (frames, rows, columns), found an input "
                f"of {tuple(pixel_values.shape[2:])}. Pad the image, or use PrithviForSemanticSegmentation, which "
                "pads it."
            )
        grid_size = tuple(
            size // patch for size, patch in zip(pixel_values.shape[2:], self.config.tubelet_size, strict=True)
        )
        positions = self._positions(grid_size)
        patches = self.patch_embeddings(pixel_values.to(self.patch_embeddings.weight.dtype))  # (B, T h w, E)
        tokens = patches + positions[:, 1:]
        cls_token = (self.cls_token + positions[:, :1]).expand(tokens.shape[0], -1, -1)
        return self.dropout(torch.cat([cls_token, tokens], dim=1))


__all__ = ["PrithviEmbeddings", "PrithviPatchEmbeddings", "sincos_position_table"]
