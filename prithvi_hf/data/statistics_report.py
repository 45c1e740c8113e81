# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A picture of a data set's statistics: the values of its bands and the pixels of its classes."""

import datetime
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prithvi_hf.data.statistics import DatasetStatistics, LabelProblem, ValueHistogram, count_classes
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.cog import complete_or_absent


_SHOWN_ON_SCREEN = 10
_MASK_VALUES_ON_SCREEN = 20
_MASK_VALUES_SHOWN = 100
_DIGITS = 6
_MAX_DIGITS = 17  # what a float64 holds
_MANY_TIMES = 100.0
_NO_CLASS = "(no class)"

_WEIGHTS_NOTE = (
    "Inverse frequency: labelled pixels / (classes that occur x pixels of the class). The mean over the labelled "
    "pixels is 1, which keeps the size of cross entropy and focal loss. A Dice loss sums over classes: weights change "
    "its size and matter less."
)


@dataclass(frozen=True)
class StatisticsReport:
    """The statistics of all splits, and what is said about them.

    Attributes:
        splits (`Mapping[str, DatasetStatistics]`): each split's figures.
        split (`str`): the split whose bands and classes give statistics and weights.
        image_processor (`PrithviImageProcessor`): the one that the files were read with.
        source (`str`): what was measured, for the heading.
        class_names (`Sequence[str]`, *optional*): name of each class, where they are known.
        loss (`str`, *optional*): the loss that the model is to be trained with, where it is known.
    """

    splits: Mapping[str, DatasetStatistics]
    split: str
    image_processor: PrithviImageProcessor
    source: str
    class_names: Sequence[str] | None = None
    loss: str | None = None

    @property
    def main(self) -> DatasetStatistics:
        """The figures of the chosen split."""
        return self.splits[self.split]

    @property
    def num_labels(self) -> int | None:
        """Number of classes: that of their names, or as the labels have it."""
        return count_classes(self.splits.values()) if self.class_names is None else len(self.class_names)

    def recipe(self) -> str:
        """The figures as the text of a YAML recipe.

        Returns:
            `str`: options that `read_recipe` and `--config` take; everything else is in comments.
        """
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        lines = [
            *_comments([f"Statistics of {self.source}, measured by prithvi-hf stats on {today}."]),
            *_comments(["A recipe in part: give it after your own, as in --config my.yaml stats.yaml"]),
            *("", *_comments(self._chip_lines()), ""),
            *("# How the files were read", *self._setting_lines(), ""),
            *("# Mean and standard deviation of each band after scaling", *self._band_statistics(), ""),
            *(*self._weight_lines(), ""),
            *_comments(self._band_lines()),
            *("", *_comments(self._mask_lines(_MASK_VALUES_SHOWN))),
        ]
        for section in (self._label_lines(None), self._unreadable_lines(None)):
            lines += ["", *_comments(section)] if section else []
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """The figures for people, with the first of each kind of problem."""
        sections = [
            *(self._chip_lines(), self._band_lines(), self._mask_lines(_MASK_VALUES_ON_SCREEN)),
            *(self._label_lines(_SHOWN_ON_SCREEN), self._unreadable_lines(_SHOWN_ON_SCREEN)),
        ]
        return "\n\n".join("\n".join(map(_printable, lines)) for lines in sections if lines)

    def warnings(self) -> list[str]:
        """What the user should know about the statistics and the weights."""
        return [text for text in (self._useless_bands_text(), *self._weight_warnings()) if text]

    # ------------------------------------------------------------------ options

    def _setting_lines(self) -> list[str]:
        """What the figures depend on; a model's own processor must not decide it differently."""
        processor = self.image_processor
        always = {
            "bands": _names(processor.bands),
            "rescale_factor": yaml_number(self.main.scale, _MAX_DIGITS),
            "rescale_offset": yaml_number(self.main.offset, _MAX_DIGITS),
            "nodata_rule": processor.nodata_rule,
        }
        where_set = {
            "band_indices": processor.band_indices and str(processor.band_indices),
            "num_frames": processor.num_frames if processor.num_frames > 1 else None,
            "nodata_value": _nodata_text(processor.nodata_value),
            "ignore_values": processor.ignore_values and str(processor.ignore_values),
            "do_reduce_labels": "true" if processor.do_reduce_labels else None,
            "mask_nodata_labels": "true" if processor.mask_nodata_labels else None,
            "class_names": self.class_names and _names(self.class_names),
        }
        settings = always | {name: value for name, value in where_set.items() if value}
        return [f"{name}: {value}" for name, value in settings.items()]

    def _band_statistics(self) -> list[str]:
        mean, std = self.main.image_mean, self.main.image_std
        digits = [_digits_beside(*pair) for pair in zip(mean, std, strict=True)]
        lines = [
            f"image_mean: [{', '.join(map(yaml_number, mean, digits))}]",
            f"image_std: [{', '.join(map(yaml_number, std))}]",
        ]
        useless = self._useless_bands_text()
        return [*_comments(textwrap.wrap(useless, 110)), *(f"# {line}" for line in lines)] if useless else lines

    def _useless_bands_text(self) -> str:
        """Why the bands give no statistics to normalise with; empty when they do."""
        parts = []
        for name, band in zip(self.main.band_names, self.main.bands, strict=True):
            if not band.count:
                parts.append(f"{name} has no valid value")
            elif band.std == 0:
                parts.append(f"{name} is constant ({band.minimum:.6g} in every valid pixel)")
        return parts and (
            f"image_mean and image_std are left out: {', '.join(parts)}, and no value can be divided by a standard "
            "deviation of 0. Leave such a band out of bands, or correct the files."
        )

    def _class_weights(self) -> list[float] | None:
        return self.main.class_weights(self.num_labels) if self.num_labels and self.main.class_pixels else None

    def _weight_warnings(self) -> list[str]:
        weights = self._class_weights()
        if weights is None:
            return []
        names = [self._class_name(label) for label in range(len(weights)) if label not in self.main.class_pixels]
        spread = max(weights) / min(weights)
        texts = [
            names and f"Split {self.split} has no pixel of {', '.join(names)}, whose weight is set to 1.",
            self._is_dice()
            and f"The loss is {self.loss}, which weights make larger: delete class_weights to keep it.",
            spread > _MANY_TIMES and f"The class weights differ {spread:,.0f} times, which makes training unsteady.",
        ]
        return [text for text in texts if text]

    def _weight_lines(self) -> list[str]:
        weights = self._class_weights()
        if weights is not None:
            notes = [line for text in (_WEIGHTS_NOTE, *self._weight_warnings()) for line in textwrap.wrap(text, 110)]
            return [*_comments(notes), f"class_weights: [{', '.join(map(yaml_number, weights))}]"]
        if not self.main.class_pixels:
            reason = f"split {self.split} has no labelled pixel"
        else:
            found = sorted({label for split in self.splits.values() for label in split.class_pixels})
            labels = ", ".join([*map(str, found[:_SHOWN_ON_SCREEN]), *["..."][: len(found) > _SHOWN_ON_SCREEN]])
            reason = f"the labels ({labels}) are not 0, 1, ... n; say which are classes by class_names, ignore_values"
        return _comments([f"class_weights are left out: {reason}."])

    def _is_dice(self) -> bool:
        """Whether the loss is a Dice loss alone; beside cross entropy the weights are for that."""
        return self.loss is not None and "dice" in self.loss and "cross_entropy" not in self.loss

    # ------------------------------------------------------------------ text

    def _chip_lines(self) -> list[str]:
        rows = [["split", "chips", "without mask", "no data", "ignored", "height x width: chips", "sha256"]]
        for name, split in self.splits.items():
            strangers = sum(sum(problem.values.values()) for problem in split.label_problems)
            masks = sum(split.class_pixels.values()) + split.ignored_pixels + strangers
            sizes = [f"{height} x {width}: {chips}" for (height, width), chips in split.sizes.items()]
            more = f" and {len(sizes) - _SHOWN_ON_SCREEN} more sizes" if len(sizes) > _SHOWN_ON_SCREEN else ""
            rows.append(
                [
                    *(name, f"{split.chips}", f"{split.chips_without_mask}"),
                    *(_share(split.nodata_pixels, split.total_pixels), _share(split.ignored_pixels, masks)),
                    *(", ".join(sizes[:_SHOWN_ON_SCREEN]) + more, split.digest),
                ]
            )
        return [
            "Chips; share of their pixels without data, and of their labels that are ignored",
            *_table(rows),
        ]

    def _band_lines(self) -> list[str]:
        rows = [["band", "mean", "std", "minimum", "maximum", "valid"]]
        values = self.main.total_pixels * self.image_processor.num_frames
        for name, band in zip(self.main.band_names, self.main.bands, strict=True):
            figures = [band.mean, band.std, band.minimum, band.maximum] if band.count else []
            digits = max(_digits_beside(band.mean, band.std), _DIGITS)
            texts = [f"{value:.{digits}g}" for value in figures] or ["none"] * 4
            rows.append([name, *texts, _share(band.count, values)])
        infinite = [
            f"{name} {count}"
            for name, count in zip(self.main.band_names, self.main.infinite_values, strict=True)
            if count
        ]
        note = [f"  Infinite values, which count as missing: {', '.join(infinite)}"] if infinite else []
        return [f"Bands of split {self.split}, valid values in file units", *_table(rows), *note]

    def _mask_lines(self, limit: int) -> list[str]:
        values = sorted({value for split in self.splits.values() for value in split.mask_values})
        # Values that are no class are what one looks for, and often come last, such as 255.
        strangers = [value for value in values[limit:] if self._meaning(value) == _NO_CLASS]
        shown = [*values[:limit], *strangers[:limit]]
        rows = [["mask value", "class", *(f"{name} pixels" for name in self.splits)]]
        for value in shown:
            counts = [split.mask_values.get(value, 0) for split in self.splits.values()]
            totals = [sum(split.mask_values.values()) for split in self.splits.values()]
            shares = [f"{count} ({_share(count, total)})" for count, total in zip(counts, totals, strict=True)]
            rows.append([str(value), self._meaning(value), *shares])
        more = [f"  and {len(values) - len(shown)} more values"] if len(values) > len(shown) else []
        return ["Mask values", *_table(rows), *more]

    def _meaning(self, value: int) -> str:
        """What a mask value stands for."""
        processor = self.image_processor
        label = value - 1 if processor.do_reduce_labels else value
        if value == -100 or value in (processor.ignore_values or ()) or (processor.do_reduce_labels and value == 0):
            return "(ignored)"
        if label < 0 or (self.class_names is not None and label >= len(self.class_names)):
            return _NO_CLASS
        return self._class_name(label)

    def _class_name(self, label: int) -> str:
        return f"class {label}" if self.class_names is None else self.class_names[label]

    def _label_lines(self, limit: int | None) -> list[str]:
        found = [(name, problem) for name, split in self.splits.items() for problem in split.label_problems]
        lines = [f"{name}: {problem.name}: {_problem_text(problem, limit)}" for name, problem in found]
        return _listed(f"Masks that training would refuse: {len(found)}", lines, limit)

    def _unreadable_lines(self, limit: int | None) -> list[str]:
        lines = [f"{name}: {text}" for name, split in self.splits.items() for text in split.unreadable]
        return _listed(f"Chips that could not be read and count nowhere: {len(lines)}", lines, limit)


def unreadable_message(splits: Mapping[str, DatasetStatistics]) -> str | None:
    """The error for chips that could not be read, the first of them by name; None where there is none.

    Args:
        splits (`Mapping[str, DatasetStatistics]`): each split's figures.
    """
    lines = [f"{name}: {text}" for name, split in splits.items() for text in split.unreadable]
    if not lines:
        return None
    chips = len(lines) + sum(split.chips for split in splits.values())
    return "\n".join(
        [
            f"{len(lines)} of {chips} chips cannot be read, so nothing is written:",
            *map(_printable, _listed("", lines, _SHOWN_ON_SCREEN)[1:]),
            "Mend or remove them, or leave them out with --skip_unreadable.",
        ]
    )


def yaml_number(value: float, digits: int = _DIGITS) -> str:
    """Writes a number so that YAML reads a float: with a point, which `1e-05` lacks.

    Args:
        value (`float`): any float.
        digits (`int`, *optional*, defaults to 6): significant digits.

    Returns:
        `str`: such as `0.0333`, `1200.0`, `1.0e-05` or `.nan`.
    """
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
    # repr is the shortest text of a float: 0.0001, not the 17 digits of what it holds.
    mantissa, *exponent = repr(float(f"{value:.{digits}g}")).split("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return "e".join([mantissa, *exponent])


def _digits_beside(mean: float, std: float) -> int:
    """Significant digits that give a mean to a millionth of the standard deviation: 6, more for a large mean."""
    if not math.isfinite(mean) or not std > 0 or mean == 0:
        return _DIGITS
    return min(_DIGITS + max(0, math.ceil(math.log10(abs(mean) / std))), _MAX_DIGITS)


def _names(names: Sequence[str]) -> str:
    return yaml.safe_dump(list(names), default_flow_style=True, allow_unicode=True, width=math.inf).strip()


def _nodata_text(nodata_value: float | list[float] | None) -> str | None:
    values = nodata_value if isinstance(nodata_value, list) else [nodata_value]
    # A recipe takes one value; several exist in Python only.
    return yaml_number(values[0], _MAX_DIGITS) if len(values) == 1 and values[0] is not None else None


def _problem_text(problem: LabelProblem, limit: int | None) -> str:
    pairs = [f"{value:g} ({count} pixel{'s' if count > 1 else ''})" for value, count in problem.values.items()]
    more = len(pairs) - limit if limit is not None else 0
    rest = f" and {more} more values" if more > 0 else ""
    return f"{problem.text}: {', '.join(pairs[:limit])}{rest}" if pairs else problem.text


def _listed(title: str, lines: list[str], limit: int | None) -> list[str]:
    if not lines:
        return []
    rest = len(lines) - limit if limit is not None else 0
    return [title, *(f"  {line}" for line in lines[:limit]), *([f"  and {rest} more"] if rest > 0 else [])]


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"


def _comments(texts: Sequence[str]) -> list[str]:
    """Comment lines. What names of files hold must neither end a comment nor reach a terminal as a command."""
    return [f"# {_printable(text)}" for text in texts]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


_PANEL_INCHES = 6.0
_DPI = 120
_TAIL = 0.001  # share of the values at either end that may lie outside the picture
_MAX_BARS = 40


def write_statistics_plot(path: str | os.PathLike, report: StatisticsReport) -> None:
    """Draw the histograms of the bands and a bar chart of the classes as PNG.

    Args:
        path: The PNG to write; an existing one is replaced, and only by a complete one.
        report: Statistics that were measured with histograms.

    Raises:
        ValueError: If the folder does not exist.
    """
    # A figure of its own canvas leaves pyplot and its global state alone.
    figure = Figure(figsize=(2 * _PANEL_INCHES, _PANEL_INCHES), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bands, classes = figure.subplots(1, 2)
    _draw_bands(bands, report)
    _draw_classes(classes, report)
    with complete_or_absent(path) as part:
        canvas.print_figure(part, dpi=_DPI, format="png")


def _draw_bands(axes: Axes, report: StatisticsReport) -> None:
    """Draw the density of each band's values after scaling."""
    main, ends = report.main, []
    for name, histogram in zip(main.band_names, main.histograms, strict=True):
        if not histogram.counts.size:
            continue
        edges = histogram.edges * main.scale + main.offset
        density = histogram.counts / (histogram.counts.sum() * np.abs(np.diff(edges)))
        axes.stairs(density, edges, label=_plain(name))
        ends += [end * main.scale + main.offset for end in _ends(histogram)]
    axes.set_title(f"bands, split {_plain(report.split)}")
    axes.set_xlabel("value after scaling")
    axes.set_ylabel("density")
    if ends:
        axes.set_xlim(min(ends), max(ends))
        axes.legend(frameon=False)


def _ends(histogram: ValueHistogram) -> tuple[float, float]:
    """Edges between which nearly all values lie; a few outliers would press the rest into one line."""
    shares = histogram.counts.cumsum() / histogram.counts.sum()
    first, last = np.searchsorted(shares, [_TAIL, 1 - _TAIL])
    return float(histogram.edges[first]), float(histogram.edges[last + 1])


def _draw_classes(axes: Axes, report: StatisticsReport) -> None:
    """Draw the share of each class in the labelled pixels."""
    pixels = report.main.class_pixels
    labels = sorted(pixels) if report.num_labels is None else list(range(report.num_labels))
    labels = labels[:_MAX_BARS]
    names = [f"class {label}" if report.class_names is None else report.class_names[label] for label in labels]
    shares = [pixels.get(label, 0) / max(sum(pixels.values()), 1) for label in labels]
    bars = axes.barh(range(len(labels)), shares)
    axes.bar_label(bars, [f"{share:.2%}" for share in shares], padding=3)
    axes.set_yticks(range(len(labels)), [_plain(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("share of the labelled pixels")
    axes.set_title("classes")


def _plain(text: str) -> str:
    """Text in which matplotlib sees neither formulas nor entries to leave out."""
    return text.replace("$", r"\$").lstrip("_")


__all__ = ["StatisticsReport", "unreadable_message", "write_statistics_plot", "yaml_number"]
