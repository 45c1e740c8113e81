# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What is said about a dataset's statistics: a recipe in part, a summary, warnings and a picture."""

import datetime
import math
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from prithvi_hf.data.chips import describe_wrong_masks, find_shared_images
from prithvi_hf.data.statistics import DatasetStatistics
from prithvi_hf.data.statistics_charts import draw_band_histograms, draw_class_balance
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, advise_label_options, make_labels
from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions, update_options
from prithvi_hf.outputs.figures import escape_label, make_figure, save_chart


_SHOWN_ON_SCREEN = 10
_NAMES_ON_SCREEN = 3
_MASK_VALUES_ON_SCREEN = 20
_MASK_VALUES_SHOWN = 100
_MANY_TIMES = 100.0
_IGNORED, _NOT_A_CLASS = "(ignored)", "(not a class)"

_WEIGHTS_NOTE = (
    "Inverse frequency: labelled pixels / (classes that occur x pixels of the class). The mean over the labelled "
    "pixels is 1, which keeps the size of cross entropy and focal loss. A Dice loss sums over classes: weights change "
    "its size and matter less."
)


@dataclass(frozen=True)
class StatisticsReport:
    """The statistics of all splits, and what is said about them."""

    splits: Mapping[str, DatasetStatistics]
    split: str  # whose bands and classes give statistics and weights
    image_processor: PrithviImageProcessor  # the one that the files were read with
    source: str  # what was measured, for the heading
    class_names: Sequence[str] | None = None  # where they are known
    loss: str | None = None  # the one to train with, where it is known

    @property
    def main(self) -> DatasetStatistics:
        """The figures of the chosen split."""
        return self.splits[self.split]

    @property
    def has_values(self) -> bool:
        """Whether the masks hold a quantity and not classes."""
        return self.image_processor.label_type == "value"

    @property
    def num_labels(self) -> int | None:
        """Number of classes: that of their names, or n where the labels are 0, 1, ... n - 1 without a gap."""
        if self.class_names is not None:
            return len(self.class_names)
        labels = {label for split in self.splits.values() for label in split.class_pixels}
        return len(labels) if len(labels) > 1 and max(labels) == len(labels) - 1 else None

    def recipe(self) -> str:
        """Write the figures as a YAML recipe of options that `--config` takes; everything else is in comments."""
        processor, main = self.image_processor, self.main
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        # What the figures depend on; a model's own processor must not decide it differently.
        settings: dict[str, Any] = {
            "bands": list(processor.bands),
            "rescale_factor": float(main.scale),
            "rescale_offset": float(main.offset),
            "nodata_rule": processor.nodata_rule,
        }
        nodata = processor.nodata_value if isinstance(processor.nodata_value, list) else [processor.nodata_value]
        where_set = {
            "band_indices": processor.band_indices,
            "band_map": processor.band_map,
            "band_names": processor.band_names,
            "num_frames": processor.num_frames if processor.num_frames > 1 else None,
            # A recipe takes one value; several exist in Python only.
            "nodata_value": None if nodata[0] is None or len(nodata) > 1 else float(nodata[0]),
            "ignore_values": processor.ignore_values,
            "label_map": processor.label_map,
            "do_reduce_labels": processor.do_reduce_labels or None,
            "mask_nodata_labels": processor.mask_nodata_labels or None,
            "class_names": self.class_names and list(self.class_names),
        }
        if self.has_values:
            names = ("target_rescale_factor", "target_rescale_offset", "target_nodata_value", "target_range")
            where_set |= {"task": "regression", **{name: getattr(processor, name) for name in names}}
        settings |= {name: value for name, value in where_set.items() if value not in (None, [])}
        rounded = [_round(*pair) for pair in zip(main.image_mean, main.image_std, strict=True)]
        bands = _to_yaml({"image_mean": [mean for mean, _ in rounded], "image_std": [std for _, std in rounded]})
        useless = self._explain_useless_bands()
        if useless:
            bands = _comment([*textwrap.wrap(useless, 110), *bands.splitlines()])
        sections = [
            _comment([f"Statistics of {self.source}, measured by prithvi-hf stats on {today}."])
            + _comment(["A partial recipe: give it after your own, as in --config my.yaml stats.yaml"]),
            _comment(self._list_chips()),
            _comment(["How the files were read"]) + _to_yaml(settings),
            _comment(["Mean and standard deviation of each band after scaling"]) + bands,
            self._write_target() if self.has_values else self._write_weights(),
            *map(_comment, (self._list_bands(), self._list_mask_values(_MASK_VALUES_SHOWN))),
            *map(_comment, (self._list_label_problems(None), list_unreadable(self.splits, None))),
        ]
        return "\n".join(filter(None, sections))

    def summary(self) -> str:
        """Write the figures for people, with the first of each kind of problem."""
        tables = self._list_chips(), self._list_bands(), self._list_mask_values(_MASK_VALUES_ON_SCREEN)
        lists = self._list_label_problems(_SHOWN_ON_SCREEN), list_unreadable(self.splits, _SHOWN_ON_SCREEN)
        return "\n\n".join("\n".join(map(_make_printable, lines)) for lines in (*tables, *lists) if lines)

    def warnings(self) -> list[str]:
        """Say what the user should know about the statistics and the weights."""
        useless = self._explain_useless_bands()
        shared = find_shared_images({name: split.image_digests for name, split in self.splits.items()})
        return [*([useless] if useless else []), *self._warn_of_weights(self._class_weights()), *shared]

    def describe_wrong_labels(self) -> str | None:
        """Say in one message which masks training would refuse, with the remedy; None where classes have no names."""
        problems = [problem for split in self.splits.values() for problem in split.label_problems]
        if not problems or (self.class_names is None and not self.has_values):
            return None
        wrong = [problem for problem in problems if problem.values]
        if not wrong:
            first = _make_printable(f"{problems[0].name}: {problems[0].text}")
            return f"{len(problems)} masks cannot be trained on. The first: {first}"
        totals = sum((Counter(problem.values) for problem in wrong), Counter[float]())
        masks = sum(split.chips - split.chips_without_mask for split in self.splits.values())
        names = [_make_printable(name) for name in dict.fromkeys(problem.name for problem in wrong)]
        return describe_wrong_masks(names, masks, totals, self._list_used_values(), self._options)

    @property
    def _options(self) -> ProcessorOptions:
        """The options of the labels, with the number of the named classes."""
        number = self.class_names and len(self.class_names)
        return update_options(self.image_processor.checked_options(), {"num_labels": number or None})

    def _list_used_values(self) -> list[int]:
        """List the mask values that are not ignored."""
        values = sorted({value for split in self.splits.values() for value in split.mask_values})
        return [value for value, label in self._find_labels(values).items() if label != IGNORED_LABEL]

    def _find_labels(self, values: Sequence[int]) -> dict[int, int]:
        """Find the label of each mask value, whether or not there is such a class."""
        mask = Frame(np.array([values], dtype=np.int64), "masks")
        options = update_options(self._options, {"num_labels": None})
        return dict(zip(values, make_labels(mask, mask.values.shape, None, options)[0].tolist(), strict=True))

    def _explain_useless_bands(self) -> str | None:
        """Say why the bands give no statistics to normalise with; None when they do."""
        parts = []
        for name, band in zip(self.main.band_names, self.main.bands, strict=True):
            if not band.count:
                parts.append(f"{name} has no valid value")
            elif band.std == 0:
                parts.append(f"{name} is constant ({band.minimum:.6g} in every valid pixel)")
        if not parts:
            return None
        return (
            f"image_mean and image_std are left out: {', '.join(parts)}, and no value can be divided by a standard "
            "deviation of 0. Leave such a band out of bands, or correct the files."
        )

    def _class_weights(self) -> list[float] | None:
        refused = self.class_names is not None and self.main.label_problems
        if not self.num_labels or not self.main.class_pixels or refused:
            return None
        return self.main.class_weights(self.num_labels)

    def _warn_of_weights(self, weights: list[float] | None) -> list[str]:
        if weights is None:
            return []
        texts = []
        absent = [self._name_class(label) for label in range(len(weights)) if label not in self.main.class_pixels]
        if absent:
            texts.append(f"Split {self.split} has no pixel of {', '.join(absent)}, whose weight is set to 1.")
        # Of a Dice loss alone; beside cross entropy the weights are for that.
        if self.loss is not None and "dice" in self.loss and "cross_entropy" not in self.loss:
            texts.append(f"The loss is {self.loss}, which weights make larger: delete class_weights to keep it.")
        spread = max(weights) / min(weights)
        if spread > _MANY_TIMES:
            texts.append(f"The class weights differ {spread:,.0f} times, which makes training unsteady.")
        return texts

    def _write_weights(self) -> str:
        if self.main.chip_labels:  # which are of chips as a whole
            return ""
        weights = self._class_weights()
        if weights is not None:
            notes = [
                line for text in (_WEIGHTS_NOTE, *self._warn_of_weights(weights)) for line in textwrap.wrap(text, 110)
            ]
            return _comment(notes) + _to_yaml({"class_weights": [float(f"{weight:.6g}") for weight in weights]})
        if not self.main.class_pixels:
            reason = f"split {self.split} has no labelled pixel"
        elif self.class_names is not None:
            reason = f"training would refuse masks of split {self.split}, as listed below"
        else:
            found = sorted({label for split in self.splits.values() for label in split.class_pixels})
            labels = ", ".join(map(str, found[:_SHOWN_ON_SCREEN])) + (", ..." if len(found) > _SHOWN_ON_SCREEN else "")
            advice = advise_label_options(self._list_used_values(), self._options)
            reason = f"the labels ({labels}) are not 0, 1, ... n. Name the classes by class_names; {advice}"
        return _comment(textwrap.wrap(f"class_weights are left out: {reason.rstrip('.')}.", 110))

    def _write_target(self) -> str:
        values = self.main.values
        if not values.std > 0:
            found = f"all {values.count} values are {values.minimum:.6g}" if values.count else "there is no value"
            return _comment([f"target_mean and target_std are left out: in split {self.split} {found}."])
        mean, std = _round(values.mean, values.std)
        note = _comment(["Mean and standard deviation of the values that are learned, after target_rescale_factor"])
        return note + yaml.safe_dump(
            {"target_mean": mean, "target_std": std}, default_flow_style=False, sort_keys=False
        )

    def _list_chips(self) -> list[str]:
        rows = [["split", "chips", "without mask", "no data", "ignored", "height x width: chips", "sha256"]]
        for name, split in self.splits.items():
            strangers = sum(sum(problem.values.values()) for problem in split.label_problems)
            masks = sum(split.class_pixels.values()) + split.values.count + split.ignored_pixels + strangers
            sizes = [f"{height} x {width}: {chips}" for (height, width), chips in split.sizes.items()]
            more = f" and {len(sizes) - _SHOWN_ON_SCREEN} more sizes" if len(sizes) > _SHOWN_ON_SCREEN else ""
            fractions = _percent(split.nodata_pixels, split.total_pixels), _percent(split.ignored_pixels, masks)
            chips = [name, str(split.chips), str(split.chips_without_mask)]
            rows.append([*chips, *fractions, ", ".join(sizes[:_SHOWN_ON_SCREEN]) + more, split.digest])
        return ["Chips; fraction of their pixels without data, and of their labels that are ignored", *_table(rows)]

    def _list_bands(self) -> list[str]:
        rows = [["band", "mean", "std", "minimum", "maximum", "valid"]]
        values, main = self.main.total_pixels * self.image_processor.num_frames, self.main
        for name, band in zip(main.band_names, main.bands, strict=True):
            figures = (band.mean, band.std, band.minimum, band.maximum)
            texts = [f"{_round(value, band.std)[0]:.15g}" for value in figures] if band.count else ["none"] * 4
            rows.append([name, *texts, _percent(band.count, values)])
        infinite = zip(main.band_names, main.infinite_values, strict=True)
        note = ", ".join(f"{name} {count}" for name, count in infinite if count)
        return [
            f"Bands of split {self.split}, valid values in file units",
            *_table(rows),
            *([f"  Infinite values, which count as missing: {note}"] if note else []),
        ]

    def _list_mask_values(self, limit: int) -> list[str]:
        splits = self.splits.values()
        if self.has_values:
            rows = [["split", "pixels", "mean", "std", "minimum", "maximum"]]
            for name, split in self.splits.items():
                found = split.values
                figures = (found.mean, found.std, found.minimum, found.maximum)
                texts = [f"{_round(figure, found.std)[0]:.15g}" for figure in figures] if found.count else ["none"] * 4
                rows.append([name, str(found.count), *texts])
            return ["Values that are learned", *_table(rows)]
        names = sorted({name for split in splits for name in split.chip_labels})
        if names:
            rows = [["label", *(f"{name} chips" for name in self.splits)]]
            for name in names:
                rows.append([name or "(none)", *(str(split.chip_labels.get(name, 0)) for split in splits)])
            return ["Labels of chips", *_table(rows)]
        values, meanings = sorted({value for split in splits for value in split.mask_values}), {}
        for value, label in self._find_labels(values).items():
            if label == IGNORED_LABEL:
                meanings[value] = _IGNORED
            elif label < 0 or (self.class_names is not None and label >= len(self.class_names)):
                meanings[value] = _NOT_A_CLASS
            else:
                meanings[value] = self._name_class(label)
        # Values outside the classes are what one looks for, and often come last, such as 255.
        strangers = [value for value in values[limit:] if meanings[value] == _NOT_A_CLASS]
        shown = [*values[:limit], *strangers[:limit]]
        totals = [sum(split.mask_values.values()) for split in splits]
        rows = [["mask value", "class", *(f"{name} pixels" for name in self.splits)]]
        for value in shown:
            counts = [split.mask_values.get(value, 0) for split in splits]
            cells = [f"{count} ({_percent(count, total)})" for count, total in zip(counts, totals, strict=True)]
            rows.append([str(value), meanings[value], *cells])
        more = [f"  and {len(values) - len(shown)} more values"] if len(values) > len(shown) else []
        return ["Mask values", *_table(rows), *more]

    def _name_class(self, label: int) -> str:
        return f"class {label}" if self.class_names is None else self.class_names[label]

    def _list_label_problems(self, limit: int | None) -> list[str]:
        lines, alike = [], Counter[str]()
        problems = [(name, problem) for name, split in self.splits.items() for problem in split.label_problems]
        for name, problem in problems:
            if limit is not None and problem.values:
                alike[f"{name}: {problem.text}"] += 1
                if alike[f"{name}: {problem.text}"] > _NAMES_ON_SCREEN:
                    continue  # of one fault in many masks the first do on a screen; the recipe lists all
            pairs = [f"{value:g} ({count} pixel{'s' if count > 1 else ''})" for value, count in problem.values.items()]
            more = 0 if limit is None else len(pairs) - limit
            found = f": {', '.join(pairs[:limit])}" + (f" and {more} more values" if more > 0 else "") if pairs else ""
            lines.append(f"{name}: {problem.name}: {problem.text}{found}")
        for text, count in alike.items():
            lines += [f"{text} in {count - _NAMES_ON_SCREEN} more masks"] if count > _NAMES_ON_SCREEN else []
        return _list_first(f"Masks that training would refuse: {len(problems)}", lines, limit)


def list_unreadable(splits: Mapping[str, DatasetStatistics], limit: int | None) -> list[str]:
    """List the chips that could not be read, the first of them by name; empty where there is none."""
    lines = [f"{name}: {text}" for name, split in splits.items() for text in split.unreadable]
    return _list_first(f"Chips that could not be read and are not counted: {len(lines)}", lines, limit)


def check_readable(splits: Mapping[str, DatasetStatistics]) -> None:
    """Raise an error that names the first chips that could not be read, if there are any."""
    unreadable = sum(len(split.unreadable) for split in splits.values())
    if unreadable:
        chips = unreadable + sum(split.chips for split in splits.values())
        lines = map(_make_printable, list_unreadable(splits, _SHOWN_ON_SCREEN)[1:])
        raise ValueError(
            f"{unreadable} of {chips} chips cannot be read, so nothing is written:\n" + "\n".join(lines) + "\n"
            "Fix or remove them, or leave them out with --skip_unreadable."
        )


def _round(value: float, std: float) -> tuple[float, float]:
    """Round a figure of a band to a millionth of its standard deviation, and this to six digits."""
    if not 0 < std < math.inf:
        return value, std
    digits = 5 - math.floor(math.log10(std))
    return round(value, digits), round(std, digits)


def _to_yaml(options: dict[str, Any]) -> str:
    """Write options, one per line: the style None is block style for them and flow style for lists in them."""
    return yaml.safe_dump(options, default_flow_style=None, sort_keys=False, allow_unicode=True, width=sys.maxsize)


def _list_first(title: str, lines: list[str], limit: int | None) -> list[str]:
    if not lines:
        return []
    rest = len(lines) - limit if limit is not None else 0
    return [title, *(f"  {line}" for line in lines[:limit]), *([f"  and {rest} more"] if rest > 0 else [])]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {_make_printable(line)}\n" for line in lines)


def _make_printable(text: str) -> str:
    """Text in which names of files neither end a comment nor reach a terminal as a command."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def write_statistics_plot(path: str | os.PathLike, report: StatisticsReport) -> None:
    """Draw the histograms of the bands, if they were measured, and a bar chart of the classes as PNG."""
    figure = make_figure(12.0, 6.0)
    bands, classes = figure.subplots(1, 2)
    draw_band_histograms(bands, report.main)
    bands.set(title=f"bands, split {escape_label(report.split)}", xlabel="value after scaling")
    names = (
        report.class_names if report.num_labels is None else list(map(report._name_class, range(report.num_labels)))
    )
    draw_class_balance(classes, {report.split: report.main}, names)
    save_chart(figure, path)
