# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Colours of classes and bands: the model's own, those that names suggest, or a set for colour-blind eyes."""

import colorsys
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np


# Light neutral first: class 0 is the background in most tasks, and the later colours stand out on it. Then the colours
# of Okabe and Ito (https://jfly.uni-koeln.de/color/) without black, and of the scheme "muted" of Paul Tol
# (https://sronpersonalpages.nl/~pault/), which colour-blind eyes tell apart as well.
_FIRST_COLORS = (
    *("#e3ddcb", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#56b4e9", "#d55e00"),
    *("#332288", "#999933", "#882255", "#44aa99", "#ddcc77", "#117733"),
)
_ALIKE = 60  # colours that differ by less, in the sum of red, green and blue, look alike
_GOLDEN_ANGLE = 0.381966  # of a turn: successive hues fall as far as possible from all earlier ones
_NEUTRAL = ("#e3ddcb", "#c9c4b5", "#b0ab9d")
# What words in a class name say of its colour, and shades of it. The first that fits counts: "unburnt forest" is
# neutral, "forest fire" is red.
_MEANINGS = (
    (r"no|not|non\w*|without|un(?!der|i)\w+|backgrounds?|others?|none|void|rest", _NEUTRAL),
    (r"snow\w*|ice|glaciers?", ("#cfeaf5", "#a5d3e6", "#e4f4fa")),
    (r"shadows?", ("#5c5f6b", "#3f424c")),
    (r"clouds?|cirrus|haze|fog|smoke", ("#f4f4f4", "#c3c7cc", "#dcdfe2")),
    (r"burn\w*|\w*fires?|scars?", ("#e34a33", "#a50f15", "#fc8d59")),
    (r"wetlands?|marsh\w*|swamps?|bogs?|mangroves?|peat\w*", ("#7fb3b0", "#3f8f8a", "#a9d3cf")),
    (
        r"\w*waters?|flood\w*|inundat\w*|rivers?|lakes?|ponds?|reservoirs?|seas?|oceans?",
        ("#1f6fb4", "#6baed6", "#08306b"),
    ),
    (
        r"urban|built|buildings?|cit(?:y|ies)|towns?|settlements?|developed|impervious|roads?|roofs?|artificial|houses?",
        ("#8f8f8f", "#a63d40", "#5f5f5f"),
    ),
    (r"\w*forests?|trees?|wood\w*|plantations?", ("#0b6e4f", "#4fa36b", "#8cc084")),
    (
        r"crop\w*|farm\w*|agricultur\w*|cultivated|arable|fields?|irrigated|corn|maize|\w*wheat|rice|soy\w*|barley|cotton|"
        r"sorghum|alfalfa|hay|fallow|orchards?|vineyards?|canola|rapeseed|potato\w*|sugar\w*|sunflowers?",
        ("#f2c230", "#d99a1c", "#f7e08a", "#b5791b", "#e8d25a", "#c9b037"),
    ),
    (
        r"\w*grass\w*|pastures?|meadows?|shrub\w*|scrub\w*|savannas?|rangelands?|\w*vegetation|moss|lichen",
        ("#a6d05f", "#7aa640", "#cbe3a0"),
    ),
    (
        r"bare|barren|soils?|sands?|rocks?|deserts?|mines?|mining|landslides?|mud|"
        r"dunes?|deforest\w*",
        ("#a6754b", "#7f5539", "#cfa67c"),
    ),
    (r"land|ground|clear|dry|normal|stable", _NEUTRAL),
)
BAND_COLORS = {
    **{"COASTAL_AEROSOL": "#6a4fb3", "BLUE": "#1f5fd0", "GREEN": "#2e9b3c", "RED": "#e8352b"},
    **{"RED_EDGE_1": "#d4536f", "RED_EDGE_2": "#c24b8a", "RED_EDGE_3": "#a8327e"},
    **{"NIR_BROAD": "#a3423a", "NIR_NARROW": "#7a0c12", "WATER_VAPOR": "#5ab4c9", "CIRRUS": "#9aa3ad"},
    **{"SWIR_1": "#b8860b", "SWIR_2": "#6b4a1e", "PANCHROMATIC": "#444444"},
    **{"THERMAL_INFRARED_1": "#ff8c1a", "THERMAL_INFRARED_2": "#ffb566"},
}
"""Colour of each band in charts: its own where it is visible; the near infrared dark red, the short-wave one brown."""

Rgb: TypeAlias = tuple[int, int, int]


def parse_color(color: str) -> Rgb:
    """Read a `"#rrggbb"` colour as red, green and blue, each 0 to 255.

    Raises:
        ValueError: If the text has another form.
    """
    if not isinstance(color, str) or not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"A class colour is written '#rrggbb', found {color!r}: correct `class_colors` of the model.")
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def format_color(color: Sequence[int]) -> str:
    """Write red, green and blue, each 0 to 255, as `"#rrggbb"`; what follows them, such as alpha, is left out."""
    red, green, blue = color[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def default_colors(num_classes: int, names: Sequence[str] = ()) -> list[str]:
    """Give `"#rrggbb"` for classes without colours of their own, all different.

    Args:
        num_classes: Number of classes.
        names: Their names. Those that tell what a class is give it its colour (water blue, forest green, burn scars
            red, land and background neutral); all others get colours that colour-blind eyes tell apart, the first of
            which do not depend on the number of classes.
    """
    colors: dict[int, str] = {}
    for index, name in enumerate(names[:num_classes]):
        words = " ".join(re.findall(r"[A-Z]*[a-z]+|[A-Z]+", str(name))).lower()  # "NotWater" and "not_water" too
        shades = next((shades for words_of, shades in _MEANINGS if re.search(rf"\b(?:{words_of})\b", words)), ())
        if (shade := next((shade for shade in shades if shade not in colors.values()), None)) is not None:
            colors[index] = shade
    named = np.array([parse_color(color) for color in colors.values()], dtype=int).reshape(-1, 3)
    free = (color for color in _iterate_colors() if (abs(named - parse_color(color)).sum(axis=1) > _ALIKE).all())
    for index in range(num_classes):
        if index not in colors:
            taken = {*colors.values(), *(_NEUTRAL if index else ())}
            colors[index] = next(color for color in free if color not in taken)
    return [colors[index] for index in range(num_classes)]


def _iterate_colors() -> Iterator[str]:
    """Give colours without end: those picked by hand, then all around the circle of hues."""
    yield from _FIRST_COLORS
    for step in itertools.count():
        lightness, saturation = (0.45, 0.62, 0.34, 0.74)[step % 4], (0.75, 0.55, 0.9)[step % 3]
        red, green, blue = colorsys.hls_to_rgb((step * _GOLDEN_ANGLE) % 1.0, lightness, saturation)
        yield f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def class_palette(num_classes: int, class_colors: Sequence[str] | None = None, names: Sequence[str] = ()) -> list[Rgb]:
    """Resolve `"#rrggbb"` per class to (red, green, blue), each 0 to 255; None for `default_colors` by the names."""
    if class_colors is None:
        class_colors = default_colors(num_classes, names)
    if len(class_colors) != num_classes:
        raise ValueError(
            f"Expected one colour for each of {num_classes} classes, found {len(class_colors)}: "
            "correct `class_colors` of the model, or set it to None for the default colours."
        )
    return [parse_color(color) for color in class_colors]
