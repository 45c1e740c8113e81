# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Patches, positions, dates and places as tokens."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import nn


if TYPE_CHECKING:
    from .configuration_prithvi import PrithviConfig


COORDINATE_ARGUMENTS = {"time": "temporal_coords", "location": "location_coords"}
"""Name in `config.coords_encoding` to the argument that it takes."""


def as_frames(pixel_values: torch.Tensor | None, num_channels: int) -> torch.Tensor:
    """Bring pixel values (B, C, T, H, W), or (B, C, H, W) of one frame, to (B, C, T, H, W); refuse all others."""
    if pixel_values is None:
        raise ValueError("Expected pixel_values, found None.")
    if pixel_values.ndim == 4:
        pixel_values = pixel_values.unsqueeze(2)
    if pixel_values.ndim != 5:
        raise ValueError(
            "Expected pixel_values of shape (batch_size, num_channels, num_frames, height, width), or without "
            f"num_frames for a single frame, found {tuple(pixel_values.shape)}."
        )
    if pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"Expected pixel_values with {num_channels} bands in dimension 1 (config.num_channels), found "
            f"{pixel_values.shape[1]} in {tuple(pixel_values.shape)}. Select the bands with the image processor, or "
            "fit the model to the bands of your data with model.set_bands."
        )
    return pixel_values


def pad_by_reflection(
    pixel_values: torch.Tensor, multiple: tuple[int, int], both_sides: bool = False
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Pad the last two dimensions by reflection to the next multiple of rows and columns: right and bottom, or around.

    Unlike torch's reflection padding it takes images smaller than the padding too: the reflection goes on back and
    forth, as numpy's `"reflect"` does. Returns the padded images and the row and column where they begin.
    """
    starts = []
    for dim, step in zip((-2, -1), multiple, strict=True):
        size = pixel_values.shape[dim]
        padding = -size % step
        starts.append(padding // 2 if both_sides else 0)
        if isinstance(padding, torch.SymInt) or padding:  # a size that an export leaves open is not asked
            period: Any = max(2 * (size - 1), 1)
            if isinstance(padding, torch.SymInt):  # ONNX takes no remainder of a number that is left open
                period = torch.full((), period, device=pixel_values.device)
            index = (torch.arange(size + padding, device=pixel_values.device) - starts[-1]) % period
            pixel_values = pixel_values.index_select(dim, torch.minimum(index, period - index) if size > 1 else index)
    return pixel_values, (starts[0], starts[1])


def sincos_position_table(hidden_size: int, grid_size: tuple[int, int, int]) -> torch.Tensor:
    """Make the fixed 3-D sine-cosine position table of Prithvi, class token (all zeros) first.

    Channels are split 6/16 to the column, 6/16 to the row, 4/16 to the frame, in this order; tokens run over columns
    first, then rows, then frames. Pretrained weights rely on both. It is made on the CPU, in float64, which not every
    device has; also while a model is being built on the meta device. The first generation computed its frequencies in
    float32; the difference is below 1e-6. Of a grid of frames, rows and columns it is float32 of shape
    `(1, 1 + frames * rows * columns, hidden_size)`, on the CPU.
    """
    frames, rows, columns = grid_size
    parts = []
    for sixteenths, length, shape in ((6, columns, (1, 1, -1)), (6, rows, (1, -1, 1)), (4, frames, (-1, 1, 1))):
        size = hidden_size // 16 * sixteenths
        frequencies = 10000.0 ** (torch.arange(size // 2, dtype=torch.float64, device="cpu") / -(size / 2))
        angles = torch.outer(torch.arange(length, dtype=torch.float64, device="cpu"), frequencies)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (length, size)
        parts.append(waves.view(*shape, size).expand(frames, rows, columns, -1))
    table = torch.cat(parts, dim=-1)  # (T, h, w, E)
    return nn.functional.pad(table.reshape(1, -1, hidden_size), (0, 0, 1, 0)).float()


def interpolate_position_table(
    table: torch.Tensor, grid_size: tuple[int, int, int], new_grid_size: tuple[int, int, int]
) -> torch.Tensor:
    """Fit a position table `(1, 1 + frames * rows * columns, hidden_size)` of one grid of tokens to another grid.

    As terratorch does for the second generation: a new number of frames is computed, new rows and columns are
    interpolated from those of the table, bicubically with `align_corners=True`.
    """
    # A size that an export leaves open is never compared: it would be fixed to that of the example.
    is_open = [isinstance(size, torch.SymInt) for size in new_grid_size]
    if not any(is_open) and tuple(new_grid_size) == tuple(grid_size):
        return table
    (frames, rows, columns), dtype = grid_size, table.dtype
    if is_open[0] or new_grid_size[0] != frames:
        table = sincos_position_table(table.shape[-1], (new_grid_size[0], rows, columns)).to(table.device)
    if any(is_open[1:]) or tuple(new_grid_size[1:]) != (rows, columns):
        maps = table[0, 1:].float().reshape(new_grid_size[0], rows, columns, -1).permute(0, 3, 1, 2)  # (T, E, h, w)
        maps = nn.functional.interpolate(maps, size=new_grid_size[1:], mode="bicubic", align_corners=True)
        table = torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1])], dim=1)
    return table.to(dtype)


def upsample_images(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Upsample images (B, C, T, H, W) bilinearly by a factor; sides are rounded to whole pixels."""
    # In whole numbers, halves to even as `round` has it, which an export that leaves the size open can compute.
    ratio = Fraction(scale).limit_denominator(2**16)
    above, below = 2 * ratio.numerator, 2 * ratio.denominator
    size = []
    for side in images.shape[-2:]:
        whole = side * above // below
        rounded = (side * above + below // 2 - 1 + whole - whole // 2 * 2) // below
        size.append(rounded if scale >= 1 else max(1, rounded))
    # Two dimensions: neither of OpenVINO's exporter nor of ours knows what to do with three.
    bands = nn.functional.interpolate(images.flatten(1, 2), size=size, mode="bilinear", align_corners=False)
    return bands.unflatten(1, images.shape[1:3])


def encode_coordinates(coords: torch.Tensor, hidden_size: int) -> torch.Tensor:
    """Encode pairs of numbers `(..., 2)` as sines and cosines `(..., hidden_size)`, zeros where one is NaN.

    In float32 whatever the precision of the model, as in pretraining; in bfloat16 the year 2021 is 2024 or so.
    """
    count = hidden_size // 4
    frequencies = torch.arange(count, dtype=torch.float32, device=coords.device) / count
    angles = coords.float().unsqueeze(-1) * (1.0 / 10000**frequencies)  # (..., 2, E / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (..., E)
    known = coords.isfinite().all(dim=-1, keepdim=True)
    return torch.where(known, waves, torch.zeros_like(waves))


class PrithviCoordinateEmbeddings(nn.Module):
    """What `config.coords_encoding` adds to each token: the date of its frame ("time"), its place ("location").

    Both are pairs of numbers, year and day of the year, or latitude and longitude: each number is encoded by sines
    and cosines over half of the channels, and the pair is multiplied by a scale, learned or 1.
    """

    def __init__(self, config: "PrithviConfig", hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        for name in config.coords_encoding:
            if config.coords_scale_learn:
                self.register_parameter(f"{name}_scale", nn.Parameter(torch.full((1,), 0.1)))
            else:
                self.register_buffer(f"{name}_scale", torch.ones(1), persistent=False)

    def forward(
        self,
        tokens: torch.Tensor,
        grid_size: tuple[int, int, int],
        temporal_coords: torch.Tensor | None,
        location_coords: torch.Tensor | None,
    ) -> torch.Tensor:
        """Add the terms to tokens `(B, frames * rows * columns, hidden_size)`, without the class token.

        As in pretraining, the term of missing coordinates is left out: where they are None, or NaN for one image or
        frame.
        """
        given = {"time": temporal_coords, "location": location_coords}
        shapes = {"time": (tokens.shape[0], grid_size[0], 2), "location": (tokens.shape[0], 2)}
        for name, coords in given.items():
            scale = getattr(self, f"{name}_scale", None)
            if scale is None:
                continue
            if coords is None:
                # A scale that had no part in the loss would stop training on several processes.
                tokens = tokens + 0 * scale if self.training and scale.requires_grad else tokens
                continue
            argument = COORDINATE_ARGUMENTS[name]
            if tuple(coords.shape) != shapes[name] and not torch.compiler.is_exporting():
                raise ValueError(f"Expected {argument} of shape {shapes[name]}, found {tuple(coords.shape)}.")
            if coords.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"Expected {argument} in float32, found {coords.dtype}, in which the year 2021 is 2024 or so. Do "
                    "not convert coordinates."
                )
            with torch.autocast(device_type=tokens.device.type, enabled=False):
                # Whatever runs an exported graph may choose half precision by itself: there they come encoded.
                waves = coords if torch.compiler.is_exporting() else encode_coordinates(coords, self.hidden_size)
                term = waves * scale.float()  # (..., E)
            term = term.repeat_interleave(grid_size[1] * grid_size[2], dim=1) if name == "time" else term.unsqueeze(1)
            tokens = tokens + term.to(tokens.dtype)
        return tokens


class PrithviPatchEmbeddings(nn.Conv3d):
    """The 3-D convolution of non-overlapping patches; in half precision, the matrix product that it is.

    torch 2.13's half-precision `Conv3d` on a CPU (oneDNN) returns wrong values for 1x16x16 patches, off by as much as
    the largest value. In float32 the convolution stays: it adds in the original's order, and one ReLU of the
    reference values is so close to zero that another order flips it.
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to `(B, frames * rows * columns, hidden_size)`; an indivisible border is dropped."""
        half = pixel_values.dtype in (torch.float16, torch.bfloat16)
        # Whatever runs an exported graph may choose half precision by itself.
        if not (half or torch.is_autocast_enabled(pixel_values.device.type) or torch.compiler.is_exporting()):
            return super().forward(pixel_values).flatten(2).transpose(1, 2)
        frames, rows, columns = self.kernel_size
        # Views that ask nothing of the memory's layout: an export would fix the size of a batch.
        patches = pixel_values.unfold(2, frames, frames).unfold(3, rows, rows).unfold(4, columns, columns)
        patches = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).clone(memory_format=torch.contiguous_format)
        patches = patches.flatten(4).flatten(1, 3)  # (B, T' h w, C t p q)
        return nn.functional.linear(patches, self.weight.flatten(1), self.bias)


class PrithviEmbeddings(nn.Module):
    """Patch embedding, class token, fixed 3-D sine-cosine positions and, where configured, dates and places."""

    position_embeddings: torch.Tensor

    def __init__(self, config: "PrithviConfig") -> None:
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
        self.coordinates = PrithviCoordinateEmbeddings(config, config.hidden_size) if config.coords_encoding else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self._kept_positions: tuple[tuple, torch.Tensor] | None = None

    def __getstate__(self) -> dict:
        """Return what a copy or a pickle holds: all but the table that is kept."""
        return {**vars(self), "_kept_positions": None}

    def forward(
        self,
        pixel_values: torch.Tensor,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        ids_keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to tokens `(B, 1 + frames * rows * columns, hidden_size)`.

        A border narrower than a patch is dropped, as in the original. Of the patches only those of `ids_keep`
        `(B, kept)` stay, in its order.
        """
        patch = self.config.tubelet_size
        _, _, frames, height, width = pixel_values.shape
        grid_size = (frames // patch[0], height // patch[1], width // patch[2])
        if min(grid_size) < 1:
            raise ValueError(
                f"Expected at least one patch of {patch} (frames, rows, columns), found an input of "
                f"{tuple(pixel_values.shape[2:])}. Pad it, or use PrithviForSemanticSegmentation, which does."
            )
        table = self.position_embeddings
        # An interpolated table is kept while images keep their size; one of inference mode has no version.
        if torch.compiler.is_compiling() or grid_size == self.config.grid_size or table.is_inference():
            positions = interpolate_position_table(table, self.config.grid_size, grid_size)
        else:
            version = (table.data_ptr(), table._version, table.dtype, table.device)
            key, kept = (grid_size, self.config.grid_size, *version), self._kept_positions
            if kept is None or kept[0] != key:
                with torch.inference_mode(False):  # the next to want it may be training
                    kept = (key, interpolate_position_table(table, self.config.grid_size, grid_size))
                self._kept_positions = kept
            positions = kept[1]
        patches = self.patch_embeddings(pixel_values.to(self.patch_embeddings.weight.dtype))  # (B, T h w, E)
        tokens = patches + positions[:, 1:]
        if self.coordinates is not None:
            tokens = self.coordinates(tokens, grid_size, temporal_coords, location_coords)
        if ids_keep is not None:
            tokens = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        # Taken out by its index: the gradient of a slice has other strides, of which DistributedDataParallel warns.
        cls_token = (self.cls_token[:, 0] + positions[:, 0]).expand(tokens.shape[0], -1)
        return self.dropout(torch.cat([cls_token.unsqueeze(1), tokens], dim=1))
