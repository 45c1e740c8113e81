# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Cross-validation: a training for each fold, and the figures over all chips, each held out by one of them."""

from typing import Any

import pyarrow as pa

from prithvi_hf.data.folds import FOLDS, write_folds
from prithvi_hf.data.groups import find_groups
from prithvi_hf.training.chip_figures import (
    CHIP_FIGURES,
    change_metadata,
    compute_figures,
    find_splits,
    read_chip_figures,
    write_chip_figures,
)
from prithvi_hf.training.evaluation import format_figure
from prithvi_hf.training.fold_splits import divide_chips, find_fold_splits, join_fold_splits
from prithvi_hf.training.intervals import bootstrap_interval, describe_interval
from prithvi_hf.training.model_card import escape_code, escape_text
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_chips import load_splits
from prithvi_hf.training.recipe_options import CLASS_FIGURES, HELD_OUT
from prithvi_hf.training.repeats import Repeats
from prithvi_hf.training.summary import list_rows, read_summary


class FoldRuns(Repeats):
    """A training for each fold, as [`Repeats`] has one for each seed.

    Attributes:
        folds: Fold of each chip.
        groups: Group of each chip; empty where `fold_file` alone says how they are divided.
        pooled: Figures over all chips, once all runs are complete.
        intervals: Their intervals, by the same names.
    """

    def make_members(self) -> dict[str, TrainingRecipe]:
        """Divide the chips, and make the recipe of each fold."""
        data, table = self.whole.data, self.folder / FOLDS
        names = find_fold_splits(self.whole)
        chips = join_fold_splits(self.whole, load_splits(self.whole, names, "Name others with --fold_splits."))
        # Runs that are taken up again keep their division, whatever version of scikit-learn there is now.
        is_divided = self.is_resumed and table.is_file() and read_summary(self.folder) is not None
        recipe = self.whole.change({"fold_file": str(table)}) if is_divided else self.whole
        self.folds = divide_chips(recipe, chips)
        found = find_groups(chips, data.group_by, ", ".join(names)) if data.group_by is not None else []
        self.groups = dict(zip(self.folds, found, strict=False))
        self.pooled: dict[str, Any] = {}
        self.intervals: dict[str, Any] = {}
        self.how = ""  # the intervals were made
        members = {}
        for number in range(int(data.folds or 0)):
            name = f"fold-{number}"
            members[name] = self.make_member(name, {"fold": number, "fold_file": str(table.absolute())})
            members[name].folds_of_chips = self.folds
        return members

    def begin(self) -> None:
        """Write the fold of each chip too."""
        super().begin()
        write_folds(self.folder / FOLDS, self.folds, self.groups)

    def read_run(self, name: str) -> dict[str, Any]:
        """Read the figures of a run, and name what it left out."""
        fold = self.members[name].data.fold
        held = [chip for chip, number in self.folds.items() if number == fold]
        groups = sorted({self.groups[chip] for chip in held if chip in self.groups})
        return {"fold": fold, "chips": len(held), "groups": groups, **super().read_run(name)}

    def summarize(self) -> dict[str, Any]:
        """Describe the chips that were held out and the test splits, not those that chose the checkpoints."""
        return {split: rows for split, rows in super().summarize().items() if split != self.whole.data.eval_split}

    def report(self) -> None:
        """Compute the figures over all chips from those of the folds, and write them too."""
        tables = []
        for number, name in enumerate(self.members):
            table = find_splits(read_chip_figures(self.folder / name))[HELD_OUT]
            tables.append(table.append_column("fold", pa.array([number] * len(table), pa.int64())))
        pooled = pa.concat_tables(tables)
        chips = pooled["chip"].to_pylist()
        if sorted(chips) != sorted(self.folds):
            raise ValueError(
                f"Expected each of {len(self.folds)} chips once in {CHIP_FIGURES} of the folds in {self.folder}, "
                f"found {len(chips)} rows of {len(set(chips))} chips. Start again into another folder."
            )
        pooled = change_metadata(pooled, model=None, model_digest=None)  # several models
        write_chip_figures(self.folder / CHIP_FIGURES, [pooled])
        self.pooled, self.intervals = compute_figures(pooled), bootstrap_interval(pooled)
        self.how = describe_interval(pooled)
        self.write_summary()
        super().report()
        width = max(map(len, self.list_pooled()))
        print(f"{HELD_OUT}, all {len(chips)} chips together, each by the run that has not seen its group:")
        for title, figure in self.list_pooled().items():
            print(f"  {title:<{width}}  {figure}")
        print(f"  {self.how}", flush=True)

    def list_more(self) -> dict[str, Any]:
        """List the figures over all chips."""
        intervals = {f"{name}_interval": ends for name, ends in self.intervals.items()}
        return {
            "pooled": {"chips": len(self.folds), "groups": len(set(self.groups.values())), **self.pooled, **intervals}
        }

    def list_pooled(self) -> dict[str, str]:
        """Write the figures over all chips as text by title."""
        data, scale = self.whole.data, 100 if self.whole.data.task in CLASS_FIGURES else 1
        rows = list_rows(self.pooled, data.task, data.class_names or [])
        ends_of = list_rows(self.intervals, data.task, data.class_names or [])

        def write(figure: float | None) -> str:
            return format_figure(None if figure is None else scale * figure, data.task)

        return {
            title: write(figure) + (f" ({write(ends[0])} to {write(ends[1])})" if (ends := ends_of.get(title)) else "")
            for title, figure in rows.items()
        }

    def describe(self) -> tuple[str, list[str]]:
        """Say what the folds are, and give the figures over all chips."""
        count, groups = len(self.members), len(set(self.groups.values()))
        what = (
            f"Cross-validation of one recipe on `{escape_code(self.whole.data.dataset)}` in {count} folds of "
            f"{len(self.folds)} chips{f' in {groups} groups' if groups else ''}, each chip held out once"
        )
        rows = [f"| {escape_text(title)} | {figure} |" for title, figure in self.list_pooled().items()]
        note = "\n".join(
            [
                "## All chips together",
                "",
                "Each chip as it was predicted by the run that has not seen its group, neither in training nor in "
                "choosing",
                f"a checkpoint; `{CHIP_FIGURES}` holds the figures of each, and `{FOLDS}` its fold. In brackets: "
                f"{self.how}.",
                "",
                "| metric | value |",
                "|---|---|",
                *rows,
            ]
        )
        return what, [note]
