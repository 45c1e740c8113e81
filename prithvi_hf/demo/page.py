# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The parts of the page that gradio has no component for: scene and map with a slider between them, and the legend.

Pictures are inside the page, so that no address leads to them. Texts of users and of models are escaped.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prithvi_hf.demo.pictures import GridLine, confidence_colors, make_grid_lines
from prithvi_hf.models.prithvi.configuration_prithvi import NODATA_NAME
from prithvi_hf.outputs.palette import format_color
from prithvi_hf.outputs.quicklook import measure_width
from prithvi_hf.rasters.raster import find_center


if TYPE_CHECKING:
    from prithvi_hf.demo.jobs import MapView, SceneView
    from prithvi_hf.scenes.scene import Scene

EMPTY = '<div class="pd-empty"><p>The scene will be shown here, and its map beside it.</p></div>'
"""What is in the place of the pictures before there are any."""

_RAMP_STOPS = 9
_SMALL_AREA = 1e5  # square metres; smaller ones are given with more digits


def draw_scene(view: "SceneView") -> str:
    """Make the HTML of a scene that has not been mapped."""
    picture = _make_image(view.picture, f"{view.title}: {view.scene.name}", lossless=False)
    notes = _draw_notes(view.notes)
    return f'<div class="pd-viewer">{_draw_stage(view, picture, "")}{_describe_scene(view.scene)}{notes}</div>'


def draw_map(view: "MapView") -> str:
    """Make the HTML of a scene and its map, with a slider between them and a switch to the confidence."""
    figures, name = view.figures, view.view.scene.name
    parts = [f"{row.name} {100 * row.fraction:.1f} %" for row in figures.rows]
    scene = _make_image(view.view.picture, f"{view.view.title}: {name}", lossless=False)
    classes = _make_image(figures.classes, f"Map of {name}: {', '.join(parts)}", "pd-classes")
    confidence = _make_image(figures.confidence, f"Confidence of the map of {name}", "pd-confidence", lossless=False)
    choose = "this.closest('.pd-viewer').dataset.layer = this.value"
    radios = "".join(
        f'<label><input type="radio" name="pd-layer" value="{value}" onchange="{choose}"{checked}>{label}</label>'
        for value, label, checked in (("map", "Map", " checked"), ("confidence", "Confidence", ""))
    )
    grid = "this.closest('.pd-viewer').dataset.grid = this.checked ? 'on' : 'off'"
    split = "this.parentElement.style.setProperty('--pd-split', this.value + '%')"
    over = (
        f'<div class="pd-over">{classes}{confidence}</div><span class="pd-tag pd-left">scene</span>'
        '<span class="pd-tag pd-right"></span>'
        '<input type="range" class="pd-swipe" min="0" max="100" step="0.5" value="50" aria-label="Border between the '
        f'scene on the left and the map on the right, in percent of the width" oninput="{split}">'
        '<div class="pd-handle" aria-hidden="true"></div>'
    )
    switch = (
        '<div class="pd-bar"><fieldset><legend style="position:absolute;left:-9999px">Right of the slider</legend>'
        f'{radios}</fieldset><label><input type="checkbox" checked onchange="{grid}">Degrees</label></div>'
    )
    facts = _describe_scene(view.view.scene, f"mapped in {view.seconds:.1f} s")
    return f'<div class="pd-viewer" data-layer="map">{switch}{_draw_stage(view.view, scene, over)}{facts}</div>'


def draw_legend(view: "MapView", is_calibrated: bool) -> str:
    """Make the HTML of the legend: colour, area, fraction and mean confidence of each class, and what to know."""
    figures, rows = view.figures, []
    for row in figures.rows:
        area = "" if row.square_metres is None else f"<td>{format_area(row.square_metres)}</td>"
        sure = "-" if row.confidence is None else f"{100 * row.confidence:.1f} %"
        rows.append(
            f'<tr><th scope="row"><span class="pd-swatch" style="background:{row.color}"></span>{escape(row.name)}'
            f"</th>{area}"
            f'<td>{100 * row.fraction:.2f} %</td><td class="pd-wide">{row.pixels:,}</td><td>{sure}</td></tr>'
        )
    with_area = any(row.square_metres is not None for row in figures.rows)
    heads = ["Class", *(["Area (km²)"] if with_area else []), "Of the data"]
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    head += '<th scope="col" class="pd-wide">Pixels</th><th scope="col">Mean confidence</th>'
    missing = ""
    if figures.nodata_fraction:
        missing = (
            f'<p class="pd-facts"><span class="pd-swatch pd-hatch"></span>{NODATA_NAME}: '
            f"{100 * figures.nodata_fraction:.1f} % of the scene</p>"
        )
    table = confidence_colors(len(figures.rows))
    least = 1 / max(len(figures.rows), 2)
    stops = ", ".join(format_color(table[round(254 * value)]) for value in np.linspace(least, 1, _RAMP_STOPS))
    meaning = (
        "The confidence is calibrated: of many pixels with 80 %, about 80 % are right on data like those of the "
        "calibration."
        if is_calibrated
        else "The confidence is not calibrated: networks are mostly less often right than it says."
    )
    return (
        f'<div class="pd-legend"><table><caption>Legend and areas</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{missing}"
        f'<p class="pd-facts">Confidence, the probability of the class that is shown:</p>'
        f'<div class="pd-ramp" style="background:linear-gradient(90deg, {stops})"></div>'
        f'<div class="pd-ramp-ends"><span>{100 * least:.0f} %</span><span>100 %</span></div>'
        f'<p class="pd-facts">{meaning}</p>{_draw_notes(view.notes)}</div>'
    )


def format_area(square_metres: float) -> str:
    """Write an area in square kilometres, small ones with more digits."""
    return f"{square_metres / 1e6:,.{4 if square_metres < _SMALL_AREA else 2}f}"


def escape(text: str) -> str:
    """Escape a text for HTML, and for the templates that gradio may take HTML for."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\"})


def _draw_notes(notes: Sequence[str]) -> str:
    """Make paragraphs of what the reader should know."""
    return "".join(f'<p class="pd-note" role="note">{escape(note)}</p>' for note in notes)


def _make_image(picture: np.ndarray, text: str, kind: str = "", lossless: bool = True) -> str:
    """Make an image element of (h, w, 4) uint8 that holds its pixels itself."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="WEBP", lossless=lossless, quality=85, method=2)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(text)}" src="data:image/webp;base64,{data}" draggable="false">'


def _draw_stage(view: "SceneView", scene: str, over: str) -> str:
    """Put pictures, degrees and a scale bar on each other."""
    grid = view.scene.grid
    height, width = grid.size
    bar = ""
    if (metres := measure_width(grid.crs, grid.transform, height, width)) is not None:
        power = 10.0 ** math.floor(math.log10(metres / 4))
        length = power * max(factor for factor in (1, 2, 5) if factor * power <= metres / 4)
        label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
        bar = f'<div class="pd-scale" style="width:{100 * length / metres:.2f}%"><i></i>{label}</div>'
    # As wide as its column, unless it would be higher than the window.
    size = f"aspect-ratio:{width}/{height};width:min(100%, {78 * width / height:.2f}vh)"
    return f'<div class="pd-stage" style="{size}">{scene}{over}{_draw_grid(make_grid_lines(grid))}{bar}</div>'


def _draw_grid(lines: Sequence[GridLine]) -> str:
    """Draw meridians and parallels with their degrees along the lower and the right border."""
    shapes, labels = [], []
    for line in lines:
        points = " ".join(f"{x:.4f},{y:.4f}" for x, y in line.points)
        shapes += [f'<polyline class="{kind}" points="{points}"/>' for kind in ("pd-halo", "pd-line")]
        inside = line.points[((line.points > 0.04) & (line.points < 0.96)).all(axis=1)]
        if len(inside):
            x, y = inside[np.argmax(inside[:, 1 if line.is_meridian else 0])]
            # The other labels are in the corners.
            low, high = (0.0, 0.86) if line.is_meridian else (0.12, 0.9)
            if not low < (x if line.is_meridian else y) < high:
                continue
            place = (
                f"left:{100 * x:.2f}%;bottom:2px;transform:translateX(-{100 * x:.0f}%)"
                if line.is_meridian
                else f"right:2px;top:{100 * y:.2f}%;transform:translateY(-50%)"
            )
            labels.append(f'<span style="{place}">{line.label}</span>')
    if not shapes:
        return ""
    svg = f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{"".join(shapes)}</svg>'
    return f'<div class="pd-grid" aria-hidden="true">{svg}{"".join(labels)}</div>'


def _describe_scene(scene: "Scene", *more: str) -> str:
    """Say in one line what a scene is: name, dates, size, place."""
    height, width = scene.grid.size
    facts = [scene.name, *(f"{date:%Y-%m-%d}" for date in scene.dates if date is not None)]
    facts.append(f"{height:,} x {width:,} pixels")
    crs, link = scene.grid.crs, ""
    if crs is not None:
        facts.append(crs.to_string() if len(crs.to_string()) < 30 else "a CRS of its own")
        try:
            place = find_center(crs, scene.grid.transform, (0, 0, height, width), scene.name)
        except ValueError:
            place = None
        if place is not None:
            latitude, longitude = place
            facts.append(
                f"{abs(latitude):.3f}° {'N' if latitude >= 0 else 'S'}, {abs(longitude):.3f}° "
                f"{'E' if longitude >= 0 else 'W'}"
            )
            address = f"https://www.openstreetmap.org/?mlat={latitude:.5f}&mlon={longitude:.5f}#map=10/{latitude:.5f}"
            link = (
                f' · <a href="{html.escape(address)}/{longitude:.5f}" target="_blank" rel="noopener noreferrer">'
                "the place on OpenStreetMap</a>"
            )
    return f'<p class="pd-facts">{" · ".join(map(escape, [*facts, *more]))}{link}</p>'
