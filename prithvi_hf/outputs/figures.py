# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures that leave pyplot and its global state alone: notebooks show them, and files of them are whole or absent."""

import io
import os

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prithvi_hf.outputs.cog import complete_or_absent


_CHART_DPI, _PICTURE_DPI, _NOTEBOOK_DPI = 120, 150, 80


class NotebookFigure(Figure):
    """A matplotlib figure with a canvas of its own, which a notebook shows where it is the last line of a cell."""

    def _repr_png_(self) -> bytes:
        """Give the picture that IPython shows."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_NOTEBOOK_DPI, bbox_inches="tight")
        return buffer.getvalue()


def make_figure(width: float, height: float) -> NotebookFigure:
    """Make an empty figure of a size in inches, whose parts are laid out side by side without overlaps."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_chart(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a chart as PNG, whole or not at all; an existing file is replaced."""
    with complete_or_absent(path) as part:
        figure.savefig(part, format="png", dpi=_CHART_DPI)


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write pictures of scenes and maps as PNG, cut off where they end, whole or not at all."""
    with complete_or_absent(path) as part:
        # The layout leaves out what a title of two lines and a wide legend need beside pictures of a fixed shape.
        figure.savefig(part, format="png", dpi=_PICTURE_DPI, bbox_inches="tight", pad_inches=0.05)


def escape_label(text: str) -> str:
    r"""Escape a text in which matplotlib would see formulas ("$") or an entry to leave out of a legend ("_")."""
    return text.replace("$", r"\$").lstrip("_")
