# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Several trainings of one recipe, a folder each, and their summary; `--resume_from_checkpoint true` takes them up."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.utils import logging

from prithvi_hf.data.folds import FOLDS
from prithvi_hf.training.checkpoints import put_aside
from prithvi_hf.training.chip_figures import CHIP_FIGURES
from prithvi_hf.training.model_card import escape_code
from prithvi_hf.training.process_group import release_trainer
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.summary import (
    HOW_COMPUTED,
    SUMMARY,
    collect_metrics,
    format_summary,
    plot_summary,
    read_summary,
    summarize_runs,
    write_summary,
    write_summary_card,
)


logger = logging.get_logger(__name__)

# Options that change nothing of what is learned, so that runs which are taken up again may have others.
FREE_TO_CHANGE = {
    *("seed", "seeds", "output_dir", "resume_from_checkpoint", "use_cpu", "disable_tqdm", "report_to", "run_name"),
    *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers", "logging_steps"),
    *("dataloader_pin_memory", "decoded_cache", "decoded_cache_dir", "normalize_on_device", "check_data"),
    *("num_sample_predictions", "published", "save_total_limit", "hub_token", "hub_model_id", "data_dir"),
}
_OWN_FILES = ("seed-*", "fold-*", FOLDS, CHIP_FIGURES, SUMMARY, "summary.png", "README.md", "recipe.yaml")


class SeveralRuns(ABC):
    """Trainings of one recipe that are ready to start, and what they leave together.

    Attributes:
        recipe: That of the run under way; before the first, of all of them.
        trainer: That of the last run, None before it.
    """

    recipe: TrainingRecipe
    trainer: Any = None

    @abstractmethod
    def execute(self, execute: Callable[[Any], None]) -> None:
        """Run what is left to run, and report; `execute` goes through the steps of one run."""

    @abstractmethod
    def describe_resume(self) -> str:
        """Say in one clause what `--resume_from_checkpoint true` would keep and what is left."""


class Repeats(SeveralRuns):
    """Trainings of one recipe that are ready to start, one after the other, in the same processes.

    Args:
        recipe: The recipe of all of them, whose output folder gets the summary.
        setup: Makes a run of a recipe ready.
    """

    def __init__(self, recipe: TrainingRecipe, setup: Callable[[TrainingRecipe], Any]) -> None:
        check_options(recipe)
        self.recipe = self.whole = recipe
        self.setup = setup
        self.folder = Path(recipe.training.output_dir or ".")
        if (self.folder / "config.json").exists():
            raise ValueError(
                f"Expected --output_dir {self.folder} without a model, because it gets the summary of several "
                "trainings, found config.json of one there. Choose another folder."
            )
        self.is_resumed = recipe.training.continues_newest
        self.members = self.make_members()
        self.runs: dict[str, Any] = self.find_complete_runs() if self.is_resumed else {}
        # The first that is to be trained is made ready before anything is written, so that bad input stops all.
        self.waiting = [name for name in self.members if name not in self.runs]
        self.ready = setup(self.members[self.waiting[0]]) if self.waiting else None

    def make_members(self) -> dict[str, TrainingRecipe]:
        """Make the recipe of each run by the name of its folder."""
        seeds = self.whole.repeats.seeds or []
        return {f"seed-{seed}": self.make_member(f"seed-{seed}", {"seed": seed}) for seed in seeds}

    def make_member(self, name: str, options: dict[str, Any]) -> TrainingRecipe:
        """Make the recipe of one run, with options of its own."""
        return self.whole.change({**options, "output_dir": str(self.folder / name)}, without=("seeds",))

    def find_complete_runs(self) -> dict[str, Any]:
        """Find the runs that an interrupted start completed; they must be of the same options."""
        found = read_summary(self.folder)
        if found is None:
            return {}
        saved, own = found.get("options", {}), self.list_options()
        other = [name for name in sorted({*saved, *own} - FREE_TO_CHANGE) if saved.get(name) != own.get(name)]
        if other:
            pairs = ", ".join(f"{name} {own.get(name)!r} instead of {saved.get(name)!r}" for name in other)
            raise ValueError(
                f"Expected the options that the runs in {self.folder} were started with, found {pairs}. Give the same "
                "ones (recipe.yaml there holds them), or choose another --output_dir."
            )
        whole = [name for name in found["runs"] if (self.folder / name / "all_results.json").is_file()]
        return {name: found["runs"][name] for name in self.members if name in whole}

    def list_options(self) -> dict[str, Any]:
        """List the options that were given, as JSON gives them back."""
        return json.loads(json.dumps(self.whole.given, default=str))

    def execute(self, execute: Callable[[Any], None]) -> None:
        """Run what is left to run, and report; `execute` goes through the steps of one run."""
        is_first = self.whole.training.process_index == 0
        if is_first:
            self.begin()
        for name in self.waiting:
            if is_first:
                print(f"{name} ({list(self.members).index(name) + 1} of {len(self.members)})", flush=True)
            run = self.ready or self.setup(self.members[name])
            self.ready, self.recipe, self.trainer = None, run.recipe, run.trainer
            execute(run)
            release_trainer(run.trainer)
            if is_first:
                self.runs[name] = self.read_run(name)
                self.write_summary()
        if is_first:
            self.report()

    def begin(self) -> None:
        """Put an earlier start aside, unless it is taken up again, and write what is known before the first run."""
        if not self.is_resumed:
            put_aside(self.folder, _OWN_FILES)
            if self.ready is not None:  # the folder that its Trainer found is aside now
                Path(self.ready.recipe.training.output_dir).mkdir(parents=True, exist_ok=True)
        self.write_summary()
        self.whole.save(self.folder / "recipe.yaml")
        for name in self.runs:
            logger.warning(f"{self.folder / name} is complete: it is kept as it is.")

    def read_run(self, name: str) -> dict[str, Any]:
        """Read the figures of a complete run from its folder."""
        recipe = self.members[name]
        results = json.loads((self.folder / name / "all_results.json").read_text(encoding="utf-8"))
        return {"seed": recipe.training.seed, "splits": collect_metrics(results, recipe.list_evaluations())}

    def summarize(self) -> dict[str, Any]:
        """Describe every metric of every split over the runs that are complete, in the order of their seeds."""
        return summarize_runs({name: self.runs[name]["splits"] for name in self.members if name in self.runs})

    def write_summary(self) -> None:
        """Write `summary.json`: the figures of every run that is complete, and what they come to."""
        content = {
            "task": self.whole.data.task,
            "class_names": self.whole.data.class_names or [],
            "prithvi_hf": version("prithvi_hf"),
            "complete": len(self.runs) == len(self.members),
            "how_computed": HOW_COMPUTED,
            "options": self.list_options(),
            "splits": self.summarize(),
            "runs": {name: self.runs[name] for name in self.members if name in self.runs},
        }
        write_summary(self.folder, content | self.list_more())

    def list_more(self) -> dict[str, Any]:
        """List what else the summary holds."""
        return {}

    def report(self) -> None:
        """Print the table, draw the picture and write the card."""
        data, summary = self.whole.data, self.summarize()
        plot_summary(summary, data.task, list(self.members), self.folder / "summary.png")
        what, notes = self.describe()
        write_summary_card(self.folder, self.whole, what, summary, list(self.members), notes)
        print(format_summary(summary, data.task, data.class_names or [], len(self.members)))
        print(f"every figure is in {self.folder / SUMMARY}", flush=True)

    def describe(self) -> tuple[str, list[str]]:
        """Say for the card what the runs are, and give further sections."""
        dataset = escape_code(self.whole.data.dataset)
        return f"{len(self.members)} trainings of one recipe on `{dataset}` that differ in nothing but their seed", []

    def describe_resume(self) -> str:
        """Say in one clause what would be kept and what is left."""
        left = [name for name in self.members if name not in self.runs]
        kept = f"keeps {', '.join(self.runs)} and continues" if self.runs else "continues"
        return f"--resume_from_checkpoint true {kept} with {', '.join(left) or 'the summary'}"


def check_options(recipe: TrainingRecipe) -> None:
    """Refuse options that mean nothing, or something else, for several trainings."""
    training = recipe.training
    folds = recipe.data.folds if recipe.data.fold is None else None
    kinds = {"seeds": recipe.repeats.seeds, "folds": folds, "hp_search": recipe.repeats.hp_search}
    given = [name for name, value in kinds.items() if value is not None]
    problem = None
    if len(given) > 1:
        problem = f"{' and '.join(given)} together. Run one of them in a folder of its own for each value of the other"
    elif not training.do_train:
        problem = "do_train: several trainings train. Leave --do_train false out"
    elif training.push_to_hub:
        problem = (
            "push_to_hub: the output folder holds a summary and no model. Leave it out, and upload the run that you "
            "choose by `prithvi-hf push FOLDER`"
        )
    elif training.named_checkpoint is not None:
        problem = f"resume_from_checkpoint {training.resume_from_checkpoint}, one checkpoint. Write true"
    if problem is not None:
        raise ValueError(f"Expected options that several trainings can share, found {problem}.")
