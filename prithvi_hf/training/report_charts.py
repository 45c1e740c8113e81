# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Charts of a report as SVG inside the page, in the colours of its theme."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape


Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 420, 260, 52, 12, 34, 12  # pixels
LINE_COLORS = ("#2a78c2", "#d9772b", "#2f9e62", "#b04a8f", "#8a6d3b", "#5b5fc7", "#c0392b", "#16858b")
"""Colours of lines that have none of their own."""


def draw_lines(
    series: Mapping[str, Points],
    x_title: str,
    y_range: tuple[float, float] | None = None,
    colors: Sequence[str] = LINE_COLORS,
    diagonal: bool = False,
) -> Markup:
    """Draw lines over common axes, with a legend below where there are several.

    Args:
        series: (x, y) of each line, by name; values that are not finite are left out.
        x_title: what stands below.
        y_range: lowest and highest y; those of the values by default.
        colors: of the lines, used again after the last one.
        diagonal: whether to draw the line y = x too.
    """
    lines = {name: [(x, y) for x, y in points if np.isfinite((x, y)).all()] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return Markup('<p class="none">Nothing was measured.</p>')
    xs, ys = (np.array([point[axis] for points in lines.values() for point in points]) for axis in (0, 1))
    x_range = (0.0, 1.0) if diagonal else (float(xs.min()), float(xs.max()))
    low, high = y_range or (float(ys.min()), float(ys.max()))
    x_ticks, y_ticks = _find_ticks(*x_range), _find_ticks(low, high)
    if y_range is None:
        low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / ((x_range[1] - x_range[0]) or 1)
        up = (y - low) / ((high - low) or 1)
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + across * width, 1), round(_HEIGHT - _BOTTOM - up * height, 1)

    parts = []
    for tick in y_ticks:
        (left, y), (right, _) = place(x_range[0], tick), place(x_range[1], tick)
        right = max(right, _WIDTH - _RIGHT)
        parts.append(f'<path class="grid" d="M{left} {y}H{right}"/><text x="{left - 6}" y="{y + 4}">{tick:.4g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, low)
        parts.append(f'<text class="x" x="{x}" y="{_HEIGHT - _BOTTOM + 16}">{tick:.4g}</text>')
    parts.append(f'<text class="x" x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 4}">{escape(x_title)}</text>')
    if diagonal:
        ends = [place(value, value) for value in (0.0, 1.0)]
        parts.append(f'<path class="diagonal" d="M{ends[0][0]} {ends[0][1]}L{ends[1][0]} {ends[1][1]}"/>')
    for number, points in enumerate(lines.values()):
        color, placed = colors[number % len(colors)], [place(x, y) for x, y in points]
        path = "L".join(f"{x} {y}" for x, y in placed)
        parts.append(f'<path fill="none" stroke="{escape(color)}" stroke-width="2" d="M{path}"/>')
        if len(placed) <= 40:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.6" fill="{escape(color)}"/>' for x, y in placed]
    legend = "".join(
        f'<span><i style="background:{escape(colors[number % len(colors)])}"></i>{escape(name)}</span>'
        for number, name in enumerate(lines)
    )
    legend = f'<div class="legend">{legend}</div>' if len(series) > 1 else ""
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    return Markup(svg + legend)  # noqa: S704  # every text in it is escaped above


def _find_ticks(low: float, high: float) -> list[float]:
    """Give round numbers that span a range, about five of them."""
    from matplotlib.ticker import MaxNLocator

    if high <= low:
        return [low]
    return [float(f"{tick:.12g}") for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high] or [low]
