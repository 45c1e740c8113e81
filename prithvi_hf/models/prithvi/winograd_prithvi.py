# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A transposed convolution (kernel and stride 2) and the 3x3 convolution after it as one operator.

Both are linear, so together they map a small map straight to one of twice the size. Along one dimension, with taps
`t0, t1` of the transposed convolution and `k0, k1, k2` of the convolution, the pixels 2i and 2i + 1 of the output are

    y[2i]     = k0 t1 x[i - 1] + (k1 t0 + k2 t1) x[i]
    y[2i + 1] = (k0 t0 + k1 t1) x[i] + k2 t0 x[i + 1]

two convolutions of two taps, one for each phase. Their four kernels `k0 t1, k0 t0 + k1 t1, k1 t0 + k2 t1, k2 t0` are
the coefficients of the product of the polynomials `k0 + k1 z + k2 z^2` and `t1 + t0 z`. Its values at 0, 1, -1 and
infinity determine them, so four products of matrices (16 in two dimensions) make them instead of six (36).

Two-tap convolutions in turn need four products for three neighbouring outputs instead of six, by Winograd's minimal
filtering F(3, 2) with the same four points: a tile of 4x4 pixels of `x` gives 6x6 pixels of `y` by 16 products
instead of 36 a phase. Tiles of both phases begin at the same pixel, so one transformation of the input serves both.
All coefficients are 0, 1/4, 1/2 and 1, and float32 loses nothing that could be seen.

The tiles are products of large matrices with cheap sums around them: the fast way on a CPU, as long as products are
what takes time. Where a processor has matrix units (AMX), and on other devices, the four 2x2 convolutions are one
`conv2d`; see `plan_products`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


TILE_STEP = 3
"""Rows and columns of the small map from one tile to the next; a tile gives twice as many of the large one."""
_TILES_AT_A_TIME = 320  # enough rows for a fast product of matrices, few enough for the processor's caches

_CONVOLUTION_AT_POINTS = [[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]
_TRANSPOSED_AT_POINTS = [[0, 1], [1, 1], [-1, 1], [1, 0]]
# From the products at the four points to the taps (before, after) of each phase; to what multiplies a tile's points,
# with phase 1 first, since a tile of outputs begins with an odd pixel; from a tile's pixels to its points; and from
# its products to its outputs.
_PHASE_TAPS = [
    [[1, 0, 0, 0], [-1, 0.5, 0.5, 0]],
    [[0, 0.5, -0.5, -1], [0, 0, 0, 1]],
]
_TILE_POINTS = [
    [[0, 0.5, -0.5, -1], [0, 0.25, -0.25, 0], [0, 0.25, -0.25, -1], [0, 0, 0, 1]],
    [[1, 0, 0, 0], [0, 0.25, 0.25, 0], [1, -0.25, -0.25, 0], [-1, 0.5, 0.5, 0]],
]
_TILE_INPUTS = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
_TILE_OUTPUTS = [[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, -1]]
_PLAIN_CONVOLUTION = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, transposed, ..., groups


def plan_products(dtype: torch.dtype, capabilities: Mapping[str, Any] | None = None) -> tuple[torch.dtype, bool]:
    """Choose how a CPU computes the fused operator.

    Args:
        dtype (`torch.dtype`): That of the maps before and after.
        capabilities (`Mapping[str, Any]`, *optional*): What the processor has, by the names of
            `torch.cpu.get_capabilities`, by default this one. Before torch 2.10, which does not tell, nothing.

    Returns:
        `tuple[torch.dtype, bool]`: The dtype of the products, which is `dtype` where the processor multiplies in it
        by itself, else float32; and whether they go by tiles. Matrix units multiply faster than the sums around the
        tiles could be made, so there it is the convolution.
    """
    if dtype.itemsize > 2:
        return dtype, True
    if capabilities is None:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    units, others = {
        torch.bfloat16: ("amx_bf16", ("avx512_bf16", "bf16")),  # the last is ARM's
        torch.float16: ("amx_fp16", ()),
    }[dtype]
    if capabilities.get(units):
        return dtype, False
    return (dtype if any(capabilities.get(name) for name in others) else torch.float32), True


def _both_dimensions(matrix: Sequence[Sequence[float]], like: torch.Tensor) -> torch.Tensor:
    """Give the Kronecker square of a matrix of coefficients: what it does along rows and columns."""
    one = torch.tensor(matrix, dtype=like.dtype, device=like.device)
    return torch.kron(one, one)


def fuse_kernels(transposed: torch.Tensor, convolution: torch.Tensor) -> torch.Tensor:
    """Compute the products of matrices that every form of the fused kernel is a linear function of.

    From the weights of the transposed convolution `(C, M, 2, 2)` and of the convolution after it `(O, M, 3, 3)` comes
    one matrix for each pair of points (rows, columns), `(16, O, C)`.
    """
    channels, outputs = transposed.shape[0], convolution.shape[0]
    first = _both_dimensions(_TRANSPOSED_AT_POINTS, transposed) @ transposed.flatten(2).flatten(0, 1).t()
    second = _both_dimensions(_CONVOLUTION_AT_POINTS, convolution) @ convolution.flatten(2).flatten(0, 1).t()
    first, second = first.view(16, channels, -1), second.view(16, outputs, -1)
    return torch.bmm(second, first.transpose(1, 2))


def phase_kernels(products: torch.Tensor, odd_first: bool = False) -> torch.Tensor:
    """Make weights of the four 2x2 convolutions as one: `(16, O, C)` to `(4 O, C, 2, 2)`, phases (row, column) first.

    On a map padded by one pixel of zeros, output `(i, j)` of phase `(p, q)` is pixel `(2 i - p, 2 j - q)` of the large
    map. With `odd_first` the odd phases come first, as in tiles, and channels last in memory.
    """
    coefficients = torch.tensor(_PHASE_TAPS, dtype=products.dtype, device=products.device)  # (phase, tap, point)
    both = torch.einsum("pak,qbl->pqabkl", coefficients, coefficients).flatten(0, 3).flatten(1)  # (16, 16)
    outputs, channels = products.shape[1:]
    kernels = (both @ products.flatten(1)).view(4, 4, outputs, channels)  # phases, taps
    kernels = kernels.permute(0, 2, 3, 1)
    if odd_first:
        kernels = kernels.unflatten(0, (2, 2)).flip(0, 1).reshape(4 * outputs, channels, 2, 2)
        return kernels.contiguous(memory_format=torch.channels_last)
    return kernels.reshape(4 * outputs, channels, 2, 2)


def tile_kernels(products: torch.Tensor) -> torch.Tensor:
    """Make what multiplies each of the 16 points of a tile: `(16, O, C)` to `(16, 4 O, C)`, odd phases first."""
    coefficients = torch.tensor(_TILE_POINTS, dtype=products.dtype, device=products.device)  # (phase, point, product)
    both = torch.einsum("pik,qjl->ijpqkl", coefficients, coefficients).flatten(4).flatten(2, 3).flatten(0, 1)
    return torch.matmul(both, products.flatten(1)).view(16, -1, products.shape[2])  # (16, 4, 16) @ (16, O C)


def border_sums(convolution: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute what the bias of the transposed convolution adds to the large map.

    The bias is there inside the image alone, so pixels at the border lack the taps that are outside of it. Returns
    `(9, O)`: all taps; those that the first row, last row, first column and last column lack; and those that two of
    them lack at the four corners (first and last row, first column first).
    """
    taps = torch.einsum("omyx,m->yxo", convolution, bias)
    rows, columns = taps.sum(dim=1), taps.sum(dim=0)
    corners = [taps[0, 0], taps[0, 2], taps[2, 0], taps[2, 2]]
    return torch.stack([taps.sum(dim=(0, 1)), rows[0], rows[2], columns[0], columns[2], *corners])


class TileGrid:
    """Where the tiles of a small map are. They overlap by one pixel and go over the border on all sides."""

    def __init__(self, size: tuple[int, int], batch_size: int, tiles: int = _TILES_AT_A_TIME) -> None:
        self.size, self.tiles = size, tiles
        self.rows = (2 * size[0] + 2 * TILE_STEP) // (2 * TILE_STEP)
        self.columns = (2 * size[1] + 2 * TILE_STEP) // (2 * TILE_STEP)
        self.padded = (TILE_STEP * self.rows + 1, TILE_STEP * self.columns + 1)
        self.images = max(1, min(batch_size, tiles // (self.rows * self.columns)))
        self.batch_size = batch_size

    def groups(self) -> Iterator[slice]:
        """Yield runs of images that are worked on together."""
        for first in range(0, self.batch_size, self.images):
            yield slice(first, min(first + self.images, self.batch_size))

    def strips(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last (exclusive) row of tiles of each strip."""
        step = max(1, self.tiles // (self.columns * self.images))
        count = -(-self.rows // step)
        step = -(-self.rows // count)
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)

    def pixel_rows(self, strip: tuple[int, int]) -> tuple[int, int, int]:
        """Give the first and last (exclusive) row of the large map in a strip, and how many rows its tiles skip.

        The first tile begins one row above the map.
        """
        above, below = 2 * TILE_STEP * strip[0] - 1, 2 * TILE_STEP * strip[1] - 1
        return max(above, 0), min(below, 2 * self.size[0]), max(above, 0) - above


def pad_map(pixels: torch.Tensor, padded: torch.Tensor, size: tuple[int, int], first_row: int = 0) -> None:
    """Write pixels that were never put in order into the padded small map `(B, *grid.padded, C)`.

    Pixels are `(B, rows, columns, 4, ..., 4, C)`: each dimension of 4 is one upsampling, two rows of two columns.
    """
    levels = pixels.ndim - 4
    split = pixels.view(*pixels.shape[:3], *[2] * (2 * levels), pixels.shape[-1])
    along_rows, along_columns = range(3, 3 + 2 * levels, 2), range(4, 4 + 2 * levels, 2)
    source = split.permute(0, 1, *along_rows, 2, *along_columns, -1)  # (B, rows, 2, ..., 2, columns, 2, ..., 2, C)
    rows = source[0, ..., 0].numel() // size[1]
    target = padded[:, 1 + first_row : 1 + first_row + rows, 1 : 1 + size[1]]
    sides = [2] * levels
    target.unflatten(2, (-1, *sides)).unflatten(1, (-1, *sides)).copy_(source)


def _input_points(padded: torch.Tensor, strip: tuple[int, int], columns: int) -> torch.Tensor:
    """Give the 16 points of each tile of a strip, `(16, B rows columns, C)`, of the padded map."""
    lines = padded[:, TILE_STEP * strip[0] : TILE_STEP * strip[1] + 1, : TILE_STEP * columns + 1]
    tiles = lines.unfold(1, 4, TILE_STEP).unfold(2, 4, TILE_STEP)  # (B, rows, columns, C, 4, 4)
    pixels = tiles.permute(4, 5, 0, 1, 2, 3).reshape(16, -1)
    return torch.mm(_both_dimensions(_TILE_INPUTS, pixels), pixels).view(16, -1, padded.shape[-1])


def filtered_strips(
    padded: torch.Tensor,
    kernels: torch.Tensor,
    borders: torch.Tensor,
    grid: TileGrid,
    then: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
    """Compute the large map, a strip of rows at a time: first and last (exclusive) row, and `(B, rows, width, O)`.

    `padded`, `(B, *grid.padded, C)`, is the small map with one row and column of zeros before it, and as many after it
    as the tiles reach; `kernels` are from `tile_kernels` or from `phase_kernels` with odd phases first, and `borders`,
    `(9, O)`, from `border_sums`; all of one dtype. `then` makes something else of each strip, pixel by pixel; it may
    write to what it is given.
    """
    height, width = 2 * grid.size[0], 2 * grid.size[1]
    outputs = _both_dimensions(_TILE_OUTPUTS, padded)
    interior = borders[0].repeat(4)
    _, top, bottom, left, right, *corners = borders.unbind()
    for strip in grid.strips():
        tile_rows = strip[1] - strip[0]
        if kernels.ndim == 4:
            lines = padded[:, TILE_STEP * strip[0] : TILE_STEP * strip[1] + 1, : TILE_STEP * grid.columns + 1]
            phases = nn.functional.conv2d(lines.permute(0, 3, 1, 2), kernels, interior)
            pixels = phases.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1)).permute(0, 1, 3, 2, 4, 5)
        else:
            points = torch.bmm(_input_points(padded, strip, grid.columns), kernels.transpose(1, 2))
            points[5].add_(interior)  # the point (1, 1) counts once, with a plus, in every output
            pixels = torch.mm(outputs, points.flatten(1))
            # Outputs of tiles are (9, B, rows, columns, 4, O).
            pixels = pixels.view(3, 3, len(padded), tile_rows, grid.columns, 2, 2, -1).permute(2, 3, 0, 5, 4, 1, 6, 7)
        pixels = pixels.reshape(len(padded), 2 * TILE_STEP * tile_rows, 2 * TILE_STEP * grid.columns, -1)
        first, last, skipped = grid.pixel_rows(strip)
        place = (slice(None), slice(skipped, skipped + last - first), slice(1, 1 + width))
        # Take off what the border lacks of the bias.
        inside = pixels[place]
        inside[:, :, 0].sub_(left)
        inside[:, :, -1].sub_(right)
        for is_there, row, line, (first_corner, last_corner) in (
            (first == 0, 0, top, corners[:2]),
            (last == height, -1, bottom, corners[2:]),
        ):
            if is_there:
                inside[:, row].sub_(line)
                inside[:, row, 0].add_(first_corner)
                inside[:, row, -1].add_(last_corner)
        yield (first, last), inside if then is None else then(pixels)[place]


def normalized_gelu(pixels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """Apply layer normalisation over the last dimension, and GELU."""
    return nn.functional.gelu(nn.functional.layer_norm(pixels, pixels.shape[-1:], weight, bias, eps))


class TiledUpsampling(torch.autograd.Function):
    """Normalisation, GELU and the fused operator, in strips, with little kept for the backward pass.

    Of the small map only the values before the normalisation are kept; of the kernels, the products that make them.
    Gradients of kernels add up in float32 or wider, whatever the dtype of the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pixels: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
        products: torch.Tensor,
        borders: torch.Tensor,
        widths: tuple[int, ...],
        plan: tuple[torch.dtype, bool],
    ) -> tuple[torch.Tensor, ...]:
        """Compute the large maps of several heads, each `(B, height, width, channels)`, of those `widths`.

        `pixels` are the small map before the normalisation (`weight`, `bias`, `eps`), as `pad_map` takes it;
        `products` and `borders` come from `fuse_kernels` and `border_sums`, of all heads side by side, and `plan` from
        `plan_products`. Autocast is to be switched off.
        """
        ctx.save_for_backward(pixels, weight, bias, products)
        scale = 2 ** (pixels.ndim - 4)
        # In half precision the gradient of the kernels is added up once a strip: fewer strips, at the same memory.
        tiles = _TILES_AT_A_TIME * 4 // plan[0].itemsize if plan[0].itemsize < 4 else _TILES_AT_A_TIME
        grid = TileGrid((pixels.shape[1] * scale, pixels.shape[2] * scale), len(pixels), tiles)
        ctx.eps, ctx.grid, ctx.plan = eps, grid, plan
        kernels = planned_kernels(products, plan)
        borders = borders.to(kernels.dtype)
        height, width = (2 * side for side in grid.size)
        maps = tuple(pixels.new_empty(len(pixels), height, width, channels) for channels in widths)
        for group in grid.groups():
            padded = _padded_group(normalized_gelu(pixels[group], weight, bias, eps), grid, kernels.dtype)
            for rows, strip in filtered_strips(padded, kernels, borders, grid):
                for target, part in zip(maps, strip.split(widths, dim=-1), strict=True):
                    target[group, rows[0] : rows[1]] = part
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradients of pixels, normalisation, products and border sums, given those of the large maps."""
        with torch.autocast(gradients[0].device.type, enabled=False):  # the pass may be inside of it
            pixels, weight, bias, products = ctx.saved_tensors
            kernels = planned_kernels(products, ctx.plan)
            wide = torch.promote_types(kernels.dtype, torch.float32)
            kernel_gradient = torch.zeros_like(kernels, dtype=wide)
            pixel_gradient = torch.empty_like(pixels)
            norm_gradients = [torch.zeros_like(weight), torch.zeros_like(bias)]
            levels = pixels.ndim - 4
            pairs = [dim for level in range(levels) for dim in (2 + level, 3 + levels + level)]
            for group in ctx.grid.groups():
                padded = _padded_group(normalized_gelu(pixels[group], weight, bias, ctx.eps), ctx.grid, kernels.dtype)
                maps = [gradient[group] for gradient in gradients]
                padded = _group_gradients(padded, maps, kernels, kernel_gradient, ctx.grid)
                # The transpose of `pad_map`: the map inside the padding, as pixels in their former order and shape.
                inside = padded[:, 1 : 1 + ctx.grid.size[0], 1 : 1 + ctx.grid.size[1]]
                split = inside.unflatten(2, (-1, *[2] * levels)).unflatten(1, (-1, *[2] * levels))
                activated_gradient = split.permute(0, 1, 2 + levels, *pairs, -1).reshape(pixels[group].shape)
                del padded, inside, split
                pixel_gradient[group], *parts = _activation_gradients(
                    (pixels[group], weight, bias), ctx.eps, activated_gradient.to(pixels.dtype)
                )
                for total, part in zip(norm_gradients, parts, strict=True):
                    total += part
            del kernels
            with torch.enable_grad():
                leaf = products.detach().to(wide).requires_grad_()
                made = planned_kernels(leaf, (wide, ctx.plan[1]))
                (product_gradient,) = torch.autograd.grad(made, leaf, kernel_gradient)
            sums = []  # of the border sums, (9, O)
            for gradient in gradients:  # (B, height, width, channels)
                lines = [gradient[:, 0], gradient[:, -1], gradient[:, :, 0], gradient[:, :, -1]]
                corners = [gradient[:, row, column].sum(dim=0) for row in (0, -1) for column in (0, -1)]
                total = gradient.sum(dim=(0, 1, 2))
                sums.append(torch.stack([total, *(-line.sum(dim=(0, 1)) for line in lines), *corners]))
            return pixel_gradient, *norm_gradients, None, product_gradient, torch.cat(sums, dim=-1), None, None


def planned_kernels(products: torch.Tensor, plan: tuple[torch.dtype, bool]) -> torch.Tensor:
    """Make the kernels of `filtered_strips` that a plan of `plan_products` asks for."""
    kernels = tile_kernels(products) if plan[1] else phase_kernels(products, odd_first=True)
    return kernels.to(plan[0])


def _padded_group(pixels: torch.Tensor, grid: TileGrid, dtype: torch.dtype) -> torch.Tensor:
    """Give the small map of some images with its border of zeros."""
    padded = pixels.new_zeros(len(pixels), *grid.padded, pixels.shape[-1], dtype=dtype)
    pad_map(pixels, padded, grid.size)
    return padded


@torch.enable_grad()
def _activation_gradients(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], eps: float, gradient: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Compute the gradients of pixels, weight and bias of `normalized_gelu`, which is computed a second time."""
    pixels, weight, bias = (tensor.detach().requires_grad_() for tensor in inputs)
    return torch.autograd.grad(normalized_gelu(pixels, weight, bias, eps), (pixels, weight, bias), gradient)


def _group_gradients(
    padded: torch.Tensor,
    gradients: list[torch.Tensor],
    kernels: torch.Tensor,
    kernel_gradient: torch.Tensor,
    grid: TileGrid,
) -> torch.Tensor:
    """Compute the gradient of a padded map; that of the kernels is added to what is there."""
    padded_gradient = torch.zeros_like(padded)
    inputs_at_points, outputs_at_points = (_both_dimensions(one, padded).t() for one in (_TILE_INPUTS, _TILE_OUTPUTS))
    for strip in grid.strips():
        first_line, count = TILE_STEP * strip[0], strip[1] - strip[0]
        if kernels.ndim == 4:
            place = (slice(None), slice(first_line, first_line + TILE_STEP * count + 1), slice(grid.padded[1]))
            phases = _output_pixels(gradients, strip, grid, kernels.dtype).permute(0, 1, 2, 4, 5, 3, 6, 7)
            outputs = phases.reshape(len(padded), TILE_STEP * count, grid.padded[1] - 1, -1).permute(0, 3, 1, 2)
            lines, part, _ = torch.ops.aten.convolution_backward(
                outputs, padded[place].permute(0, 3, 1, 2), kernels, None, *_PLAIN_CONVOLUTION, [True, True, False]
            )
            padded_gradient[place] += lines.permute(0, 2, 3, 1)
            kernel_gradient += part
            continue
        pixels = _output_pixels(gradients, strip, grid, kernels.dtype).permute(2, 5, 0, 1, 4, 3, 6, 7)
        outputs = torch.mm(outputs_at_points, pixels.reshape(9, -1)).view(16, -1, kernels.shape[1])
        del pixels
        inputs = _input_points(padded, strip, grid.columns)
        if kernel_gradient.dtype == kernels.dtype:
            torch.baddbmm(kernel_gradient, outputs.transpose(1, 2), inputs, out=kernel_gradient)
        else:
            for total, output, one in zip(kernel_gradient, outputs, inputs, strict=True):  # wider a piece at a time
                total += torch.mm(output.t(), one)
        torch.bmm(outputs, kernels, out=inputs)
        # The transpose of `_input_points`: add the gradients of the strip's points to those of the map.
        pixels = torch.mm(inputs_at_points, inputs.flatten(1))
        pixels = pixels.view(4, 4, len(padded), count, grid.columns, padded.shape[-1])
        for row in range(4):
            lines = padded_gradient[:, first_line + row : first_line + row + TILE_STEP * count : TILE_STEP]
            for column in range(4):
                lines[:, :, column : column + TILE_STEP * grid.columns : TILE_STEP].add_(pixels[row, column])
    return padded_gradient


def _output_pixels(
    gradients: list[torch.Tensor], strip: tuple[int, int], grid: TileGrid, dtype: torch.dtype
) -> torch.Tensor:
    """Give a strip of the gradients of the large maps side by side, `(B, rows, 3, 2, columns, 3, 2, O)` by tiles."""
    first, last, skipped = grid.pixel_rows(strip)
    count, width = strip[1] - strip[0], gradients[0].shape[2]
    batch_size, outputs = len(gradients[0]), sum(gradient.shape[-1] for gradient in gradients)
    size = (2 * TILE_STEP * count, 2 * TILE_STEP * grid.columns)
    pixels = gradients[0].new_zeros(batch_size, *size, outputs, dtype=dtype)
    inside = pixels[:, skipped : skipped + last - first, 1 : 1 + width]
    for part, gradient in zip(inside.split([g.shape[-1] for g in gradients], dim=-1), gradients, strict=True):
        part.copy_(gradient[:, first:last])
    return pixels.view(batch_size, count, TILE_STEP, 2, grid.columns, TILE_STEP, 2, outputs)
