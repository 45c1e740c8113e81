# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A search for good values of some options by `Trainer.hyperparameter_search` and optuna, in trials of one recipe.

A trial is the training that the recipe with the trial's values would be, set up in the same way, without checkpoints.
What it is judged by is `metric_for_best_model` on the evaluation split, at its best evaluation where the recipe loads
the best model at the end, at its last one otherwise.
"""

import json
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import HPSearchBackend, SaveStrategy, TrainOutput
from transformers.utils import logging

from prithvi_hf.data.transforms import collate_chips
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.checkpoints import put_aside
from prithvi_hf.training.evaluation import format_figure
from prithvi_hf.training.process_group import release_trainer
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.repeats import FREE_TO_CHANGE, SeveralRuns, check_options
from prithvi_hf.training.search_space import Space, check_space, list_space, read_space
from prithvi_hf.training.summary import SUMMARY, write_summary
from prithvi_hf.training.trainer import PrithviTrainer
from prithvi_hf.training.training_args import LOWER_IS_BETTER


logger = logging.get_logger(__name__)

STUDY, BEST_RECIPE, TRIALS = "study.db", "best_recipe.yaml", "trials.csv"
_NAME = "prithvi_hf"
_OWN_OPTIONS = ("hp_search", "hp_trials", "hp_space")
_OWN_FILES = ("trial-*", f"{STUDY}*", BEST_RECIPE, TRIALS, "trials.png", SUMMARY, "recipe.yaml")
_FINISHED, _RETRIED = "finished", "retried"  # attributes of a trial, and of a study
_SHOWN = 10


class Search(SeveralRuns):
    """A search that is ready to start.

    Args:
        recipe: The recipe with `hp_search`, whose output folder gets the study and the best recipe.
        setup: Makes a run of a recipe ready.

    Raises:
        ImportError: optuna is not installed.
        ValueError: Options or values that cannot be searched.
    """

    def __init__(self, recipe: TrainingRecipe, setup: Callable[[TrainingRecipe], Any]) -> None:
        if find_spec("optuna") is None:
            raise ImportError(
                "Expected optuna, which --hp_search needs, found it is not installed. Install it by "
                "`pip install prithvi_hf[search]`."
            )
        check_options(recipe)
        self.recipe = self.whole = recipe
        self.setup = setup
        self.folder = Path(recipe.training.output_dir or ".")
        self.is_resumed = recipe.training.continues_newest
        self.plain = recipe.change({"resume_from_checkpoint": "false"}, without=_OWN_OPTIONS)
        self.space = read_space(recipe)
        check_space(self.plain, self.space)
        self.metric = (recipe.training.metric_for_best_model or "loss").removeprefix("eval_")
        self.direction: Literal["minimize", "maximize"] = "minimize" if self.metric in LOWER_IS_BETTER else "maximize"
        if self.is_resumed and (self.folder / STUDY).is_file():
            self.check_same_recipe()
        # Chips and options are checked before anything is written, as a run of the recipe does.
        self.first = setup(self.plain)
        self.trainer = self.first.trainer

    def execute(self, execute: Callable[[Any], None]) -> None:
        """Make the trials that are left, and report; a trial only trains, so that `execute` is not called."""
        is_first = self.whole.training.process_index == 0
        left: list[int | None] = [None]
        storage = None
        if is_first:
            if not self.is_resumed:
                put_aside(self.folder, _OWN_FILES)
            storage = open_storage(self.folder)
            left[0] = self.prepare_study(storage)
        if self.whole.training.world_size > 1:
            broadcast_object_list(left)
        searcher = SearchTrainer(self)
        self.trainer = searcher
        if left[0]:
            searcher.search(left[0], storage)
        if is_first:
            self.report(storage)

    def list_recipe(self) -> dict[str, Any]:
        """List the options that were given and the space, as JSON gives them back."""
        return json.loads(json.dumps({"options": self.whole.given, "space": list_space(self.space)}, default=str))

    def check_same_recipe(self) -> None:
        """Refuse to continue the study of another recipe or space, which would mix figures of both."""
        import optuna

        try:
            study = optuna.load_study(study_name=_NAME, storage=open_storage(self.folder))
        except KeyError:  # the start before was cut off before it made one
            return
        own = self.list_recipe()
        saved = study.user_attrs.get("recipe", own)
        free = FREE_TO_CHANGE - {"seed"} | {"hp_trials", "hp_space"}
        other = [name for name in {**saved["options"], **own["options"]} if name not in free]
        other = [name for name in other if saved["options"].get(name) != own["options"].get(name)]
        other += ["hp_space"] * (saved["space"] != own["space"])
        if other:
            raise ValueError(
                f"Expected the options that the search in {self.folder} was started with, found another "
                f"{', '.join(sorted(other))}. Give the same ones (recipe.yaml there holds them), or choose another "
                "--output_dir."
            )

    def prepare_study(self, storage: Any) -> int:
        """Open the study, settle the trials of a start that was cut off, and tell how many trials are left to make."""
        import optuna

        study = optuna.create_study(storage=storage, study_name=_NAME, direction=self.direction, load_if_exists=True)
        study.set_user_attr("recipe", self.list_recipe())
        self.whole.given |= {"hp_space": list_space(self.space)}
        self.whole.save(self.folder / "recipe.yaml")

        retried = list(study.user_attrs.get(_RETRIED, []))
        for trial in study.get_trials(deepcopy=False):
            if (
                _FINISHED in trial.user_attrs
                or trial.number in retried
                or trial.state == optuna.trial.TrialState.WAITING
            ):
                continue
            if trial.state == optuna.trial.TrialState.RUNNING:  # the folder is locked: its process is gone
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
            retried.append(trial.number)
            logger.warning(f"Trial {trial.number} was cut off: its values are tried again, and it does not count.")
        study.set_user_attr(_RETRIED, retried)
        if not study.trials:  # the first trial is the recipe as it is, as far as the space has its values
            options = {**vars(self.plain.model), **vars(self.plain.data), **vars(self.plain.training)}
            known = {name: options[name] for name, values in self.space.items() if values.contains(options.get(name))}
            if known:
                study.enqueue_trial(known)
        done = sum(_FINISHED in trial.user_attrs for trial in study.trials)
        return max(0, self.whole.repeats.hp_trials - done)

    def set_up_trial(self, number: int, values: Mapping[str, Any]) -> Any:
        """Make the run of a trial ready: that of the recipe with its values, without checkpoints."""
        folder = self.folder / f"trial-{number}"
        run = self.setup(self.plain.change({**values, "output_dir": str(folder)}))
        self.recipe = run.recipe
        run.trainer.args.save_strategy = SaveStrategy.NO
        run.trainer.args.load_best_model_at_end = False
        return run

    def report(self, storage: Any) -> None:
        """Write the table of the trials, their picture, the summary and the best recipe, and print the best ones."""
        import optuna

        study = optuna.load_study(study_name=_NAME, storage=storage)
        counted = [trial for trial in study.trials if _FINISHED in trial.user_attrs]
        complete = [trial for trial in counted if trial.state == optuna.trial.TrialState.COMPLETE]
        table = study.trials_dataframe(attrs=("number", "state", "value", "params", "duration"))
        with complete_or_absent(self.folder / TRIALS) as part:
            table.to_csv(part, index=False)
        if not complete:
            raise ValueError(
                f"Expected a trial that gives {self.metric}, found none among {len(counted)}: all of them came to no "
                f"number. See {self.folder / TRIALS}, and search about a lower learning_rate."
            )
        best = study.best_trial
        self.plain.change(best.params).save(self.folder / BEST_RECIPE)
        order = sorted(complete, key=lambda trial: trial.value or 0, reverse=self.direction == "maximize")
        content = {
            "metric": f"eval_{self.metric}",
            "direction": self.direction,
            "space": list_space(self.space),
            "best": {"trial": best.number, "value": best.value, "params": best.params},
            "trials": [
                {
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    "value": trial.value,
                    "params": trial.params,
                }
                for trial in study.trials
            ],
        }
        write_summary(self.folder, content)
        plot_trials(complete, self.space, self.metric, self.folder / "trials.png")
        pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in counted)
        print(f"{len(counted)} trials, {pruned} of them stopped early; the best by {self.metric}:")
        for trial in order[:_SHOWN]:
            values = ", ".join(f"{name} {_write(value)}" for name, value in trial.params.items())
            print(f"  trial {trial.number:>3}: {format_figure(trial.value, 'regression'):>8}  {values}")
        print(f"train with the best by --config {self.folder / BEST_RECIPE}", flush=True)

    def describe_resume(self) -> str:
        """Say in one clause what would be kept and what is left."""
        return f"--resume_from_checkpoint true continues the study in {self.folder / STUDY}"


class SearchTrainer(PrithviTrainer):
    """The trainer whose `hyperparameter_search` is called; each trial trains one of its own, set up from the recipe.

    `Trainer` itself would set the values of a trial on the options that it has, by name: what belongs to the model or
    to the chips would be left out, what follows from an option would stay, and nothing would be checked.
    """

    def __init__(self, search: Search) -> None:
        first = search.first.trainer
        super().__init__(
            model_init=lambda: first.model,
            args=first.args,
            data_collator=collate_chips,
            train_dataset=first.train_dataset,
            eval_dataset=first.eval_dataset,
            processing_class=first.processing_class,
        )
        self.plan = search
        self.objective: float | None = None

    def search(self, trials: int, storage: Any) -> None:
        """Make so many trials; the storage is that of the first process, None in others."""
        import optuna

        options: dict[str, Any] = {}
        if storage is not None:
            made = len(optuna.load_study(study_name=_NAME, storage=storage).trials)
            options = {
                "storage": storage,
                "study_name": _NAME,
                "load_if_exists": True,
                # A sampler that starts again with the same numbers would try the same values again.
                "sampler": optuna.samplers.TPESampler(seed=self.args.seed + made),
                "pruner": optuna.pruners.MedianPruner(),
            }
        self.hyperparameter_search(
            hp_space=self.suggest,
            compute_objective=self.read_objective,
            n_trials=trials,
            direction=self.plan.direction,
            backend=HPSearchBackend.OPTUNA.value,
            **options,
        )

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Let a trial choose its values."""
        return {name: values.suggest(trial, name) for name, values in self.plan.space.items()}

    def read_objective(self, metrics: Mapping[str, Any]) -> float:
        """Read from the metrics of an evaluation what a trial is judged by; NaN where it is not defined."""
        value = metrics[f"eval_{self.plan.metric}"]
        return math.nan if value is None else float(value)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Train the run of a trial, and keep what it is judged by in `objective`."""
        import optuna

        values, seen = self.suggest(trial), list[float]()

        def judge(metrics: Mapping[str, Any]) -> float:
            seen.append(self.read_objective(metrics))
            return seen[-1]

        run = self.plan.set_up_trial(trial.number, values)
        own, outcome = run.trainer, TrainOutput(0, math.nan, {})
        own.hp_search_backend, own.hp_space, own.compute_objective = self.hp_search_backend, lambda _: {}, judge
        report = own._report_to_hp_search

        def report_together(*figures: Any) -> None:
            """Stop a trial in every process, which the base class does in the first one alone, as it has the study."""
            is_pruned = [False]
            try:
                report(*figures)
            except optuna.TrialPruned:
                is_pruned = [True]
            if broadcast_object_list(is_pruned)[0]:
                raise optuna.TrialPruned

        own._report_to_hp_search = report_together
        is_finished = False
        try:
            outcome = own.train(trial=trial)
            if not seen:
                judge(own.evaluate())
            is_finished = True
        except optuna.TrialPruned:
            is_finished = True
            if self.is_world_process_zero():  # optuna catches it there
                raise
        except ArithmeticError as error:  # a loss that is no number, in all processes: the values are bad, not the run
            logger.warning(f"Trial {trial.number} came to no number: {error}")
            seen, is_finished = [math.nan], True
        finally:
            if is_finished and self.is_world_process_zero():
                trial.set_user_attr(_FINISHED, True)
                folder = Path(own.args.output_dir)
                own.state.save_to_json(str(folder / "trainer_state.json"))
                run.recipe.save(folder / "recipe.yaml")
            release_trainer(own)
        better = max if self.plan.direction == "maximize" else min
        self.objective = better(seen) if self.plan.whole.training.load_best_model_at_end else seen[-1]
        return outcome


def open_storage(folder: Path) -> Any:
    """Open the study's file, SQLite."""
    import optuna

    return optuna.storages.RDBStorage(f"sqlite:///{folder.absolute() / STUDY}")


def plot_trials(trials: list[Any], space: Space, metric: str, path: Path) -> None:
    """Draw the metric over the number of the trial and over the values of each option, as PNG."""
    from prithvi_hf.outputs.figures import make_figure, save_chart

    columns = min(3, len(space) + 1)
    rows = -(-(len(space) + 1) // columns)
    figure = make_figure(4 * columns, 3.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    figures = [trial.value for trial in trials]
    grid[0].plot([trial.number for trial in trials], figures, "o", markersize=4)
    grid[0].set(title="all trials", xlabel="trial", ylabel=metric)
    for axes, (name, values) in zip(grid[1:], space.items(), strict=False):
        chosen = [trial.params[name] for trial in trials]
        if hasattr(values, "values"):  # a place on the axis for each choice, in their order
            axes.plot([values.values.index(value) for value in chosen], figures, "o", markersize=4)
            axes.set_xticks(range(len(values.values)), [_write(value) for value in values.values])
        else:
            axes.plot(chosen, figures, "o", markersize=4)
            axes.set_xscale("log" if values.log else "linear")
        axes.set(title=name, ylabel=metric)
    for axes in grid:
        axes.grid(alpha=0.3)
        axes.set_visible(bool(axes.lines))
    save_chart(figure, path)


def _write(value: Any) -> str:
    """Write a value in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
