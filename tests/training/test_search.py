# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A search: trials that are whole recipes, a study that is taken up again after a kill, and the best recipe."""

import json
import shutil

import optuna
import pytest
import yaml

from prithvi_hf.training.search import open_storage
from tests.finetune_factory import QUICK, command_line, finetune
from tests.process_factory import start_run


pytestmark = pytest.mark.slow


FEW = {**QUICK, "max_steps": 2, "num_sample_predictions": 0, "do_predict": False}
SPACE = """learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
neck: [conv_transpose, geospatial]
augmentation: [none, d4]
"""


def read(path):
    return json.loads(path.read_text())


def load_study(output):
    return optuna.load_study(study_name="prithvi_hf", storage=open_storage(output))


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)
    return {**FEW, "hp_search": "optuna", "hp_trials": 2, "hp_space": space}


@pytest.fixture(scope="module")
def searched(data, options, tmp_path_factory):
    """Output folder of a search of two trials; no test may change it."""
    output = tmp_path_factory.mktemp("search") / "OUT"
    assert finetune.main(command_line(data, output, **options)) == 0
    return output


def test_a_trial_trains_what_the_recipe_with_its_values_would_be(searched):
    first, second = load_study(searched).trials
    assert first.params["learning_rate"] == 0.001  # that of the recipe, as it is
    assert second.params != first.params
    for trial in (first, second):
        recipe = yaml.safe_load((searched / f"trial-{trial.number}" / "recipe.yaml").read_text())
        assert recipe["learning_rate"] == trial.params["learning_rate"]
        assert recipe["neck"] == trial.params["neck"]
        assert not {"hp_search", "hp_space"} & set(recipe)
        state = read(searched / f"trial-{trial.number}" / "trainer_state.json")
        rates = [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]
        assert max(rates) <= trial.params["learning_rate"]
        figures = [entry["eval_mean_iou"] for entry in state["log_history"] if "eval_mean_iou" in entry]
        assert trial.value == max(figures)  # the recipe keeps its best checkpoint


def test_it_leaves_a_recipe_a_table_and_no_weights(searched, data, tmp_path):
    assert not [path for path in searched.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    names = {path.name for path in searched.iterdir()}
    assert names >= {"study.db", "best_recipe.yaml", "recipe.yaml", "trials.csv", "trials.png", "summary.json"}
    summary, best = read(searched / "summary.json"), load_study(searched).best_trial
    assert summary["best"] == {"trial": best.number, "value": best.value, "params": best.params}
    assert (searched / "trials.csv").read_text().count("\n") == 3
    # The best recipe gives the figure of the best trial.
    words = ["--config", str(searched / "best_recipe.yaml"), "--output_dir", str(tmp_path / "OUT"), "--use_cpu"]
    assert finetune.main(words) == 0
    assert read(tmp_path / "OUT" / "all_results.json")["eval_mean_iou"] == pytest.approx(best.value, abs=1e-12)


def test_a_search_that_was_killed_tries_the_cut_values_again_and_does_not_count_them(
    searched, data, options, tmp_path, capsys
):
    output = shutil.copytree(searched, tmp_path / "OUT")
    # As a kill leaves it: a trial that runs, and nobody who runs it.
    study = load_study(output)
    cut = study.ask()
    cut.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    cut.suggest_categorical("neck", ("conv_transpose", "geospatial"))
    cut.suggest_categorical("augmentation", ("none", "d4"))
    words = command_line(data, output, **{**options, "hp_trials": 3}, resume_from_checkpoint=True)
    assert finetune.main(words) == 0
    states = [trial.state.name for trial in load_study(output).trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert load_study(output).trials[3].params == cut.params
    assert "3 trials, 0 of them stopped early" in capsys.readouterr().out

    # There is nothing left to try; another space or another recipe is not this study's.
    assert finetune.main(words) == 0
    assert len(load_study(output).trials) == 4
    assert finetune.main([*words, "--weight_decay", "0.5"]) == 2
    assert "found another weight_decay" in capsys.readouterr().err


def test_several_processes_stop_a_trial_together(data, options, tmp_path):
    """After five trials the median judges; a study of others that were perfect makes any new one the worst."""
    output = tmp_path / "OUT"
    short = {**options, "hp_trials": 1, "eval_steps": 1, "save_steps": 1, "per_device_train_batch_size": 1}
    words = command_line(data, output, **short)
    run = start_run(tmp_path / "first", words, 2)
    assert run.finish() == [0, 0], run.printed()[-3000:]
    study = load_study(output)
    for _ in range(5):
        perfect = optuna.trial.create_trial(
            params=study.trials[0].params,
            distributions=study.trials[0].distributions,
            intermediate_values={1: 1.0, 2: 1.0},
            user_attrs={"finished": True},
            value=1.0,
        )
        study.add_trial(perfect)
    words = command_line(data, output, **{**short, "hp_trials": 8}, resume_from_checkpoint=True)
    run = start_run(tmp_path / "second", words, 2)
    assert run.finish() == [0, 0], run.printed()[-3000:]
    assert [trial.state.name for trial in load_study(output).trials] == ["COMPLETE"] * 6 + ["PRUNED"] * 2
    assert "8 trials, 2 of them stopped early" in run.printed()
    assert read(output / "trial-7" / "trainer_state.json")["global_step"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: {low: 1.0e-2, high: 1.0e-3}", "low below high"),
        ("learning_rate: {low: 0.0, high: 1.0e-3, log: true}", "low above 0"),
        ("learning_rate: {low: 1e-5, high: 1.0e-3}", "write 1.0e-4"),
        ("learning_rate: [0.1]", "a list of two single values or more"),
        ("learning_rat: [0.1, 0.2]", "that a trial may change, found learning_rat"),
        ("eval_overlap: [0.0, 0.5]", "found eval_overlap"),
        ("augmentation: [none, d5]", "got d5"),
        ("neck: [geospatial, pyramid]", "values of neck in hp_space that the recipe can have, found 'pyramid'"),
        ("hidden_dropout_prob: {low: 0.0, high: 7.0}", "found 7.0"),
        ("{}", "expected options to search, found none"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_is_written(data, options, tmp_path, capsys, text, message):
    (tmp_path / "space.yaml").write_text(text)
    words = command_line(data, tmp_path / "OUT", **{**options, "hp_space": tmp_path / "space.yaml"})
    assert finetune.main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hp_trials": 0}, "hp_trials of at least 1"),
        ({"hp_search": None}, "Expected hp_search with hp_space"),
        ({"hp_space": "nowhere.yaml"}, "none at nowhere.yaml"),
        ({"seeds": [0, 1]}, "found seeds and hp_search together"),
    ],
)
def test_a_search_that_cannot_be_is_refused(data, options, tmp_path, capsys, more, message):
    assert finetune.main(command_line(data, tmp_path / "OUT", **{**options, **more})) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_a_trial_that_comes_to_no_number_is_a_bad_trial_and_not_the_end(data, options, tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: {low: 1.0e-3, high: 1.0e+38}")
    output = tmp_path / "OUT"
    more = {"hp_space": space, "lr_scheduler_type": "constant", "optim": "sgd", "max_steps": 4, "warmup_steps": 0}
    assert finetune.main(command_line(data, output, **{**options, **more})) == 0
    states = [trial.state.name for trial in load_study(output).trials]
    assert states == ["COMPLETE", "FAIL"]
