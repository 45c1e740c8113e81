# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Class colours of maps: the model's own, or a default set that stays readable for colour-blind eyes."""

import colorsys
import re
from collections.abc import Sequence
from typing import TypeAlias


# Light neutral first: class 0 is the background in most tasks, and the later colours stand out on it.
_FIRST_COLORS = (
    *("#e3ddcb", "#1f6fb4", "#e8892b", "#2f9e6e", "#b5446e", "#f2d43d", "#6fc7e8"),
    *("#7a5195", "#8a5a34", "#a5c84b", "#d64f3c", "#4b5b6b", "#f0a9c4"),
)
_GOLDEN_ANGLE = 0.381966  # of a turn: successive hues fall as far as possible from all earlier ones

Rgb: TypeAlias = tuple[int, int, int]


def parse_color(color: str) -> Rgb:
    """Read a `"#rrggbb"` colour as red, green and blue, each 0 to 255.

    Raises:
        ValueError: If the text has another form.
    """
    if not isinstance(color, str) or not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"A class colour is written '#rrggbb', found {color!r}: correct `class_colors` of the model.")
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def default_colors(num_classes: int) -> list[str]:
    """Give `"#rrggbb"` for classes without colours of their own; the first ones do not depend on their number."""
    colors = list(_FIRST_COLORS[:num_classes])
    step = 0
    while len(colors) < num_classes:  # an endless sequence follows the hand-picked ones
        lightness, saturation = (0.45, 0.62, 0.34, 0.74)[step % 4], (0.75, 0.55, 0.9)[step % 3]
        red, green, blue = colorsys.hls_to_rgb((step * _GOLDEN_ANGLE) % 1.0, lightness, saturation)
        color = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
        if color not in colors:
            colors.append(color)
        step += 1
    return colors


def class_palette(num_classes: int, class_colors: Sequence[str] | None = None) -> list[Rgb]:
    """Resolve `"#rrggbb"` per class, or None for the default colours, to (red, green, blue), each 0 to 255."""
    if class_colors is None:
        class_colors = default_colors(num_classes)
    if len(class_colors) != num_classes:
        raise ValueError(
            f"Expected one colour for each of {num_classes} classes, found {len(class_colors)}: "
            "correct `class_colors` of the model, or set it to None for the default colours."
        )
    return [parse_color(color) for color in class_colors]
