# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Every block of README and docs, in its order, on small stand-ins for the files that the page names.

Commands run in this process: launchers such as torchrun and srun are left out, which changes nothing but the number of
processes. What needs the internet or minutes is listed in `NOT_RUN`; its options are still read by the real parser.
"""

import contextlib
import io
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import datasets
import pytest
import yaml

import prithvi_hf.data.load
from prithvi_hf.cli.__main__ import build_parser
from prithvi_hf.cli.__main__ import main as run_cli
from prithvi_hf.training import pretrain
from prithvi_hf.training.pretrain_recipe import parse_pretrain_arguments
from prithvi_hf.training.recipe import find_packaged_recipes, parse_arguments, read_recipe
from tests import pretrain_factory
from tests.docs.pages import PAGES, ROOT, Block, Command, name_of, read_blocks, read_commands
from tests.docs.stand_ins import make_stand_ins
from tests.finetune_factory import HEADS, QUICK, SIZES, finetune, flags
from tests.serve_factory import start_server


# What the text of a command contains -> why it is not run.
NOT_RUN = {
    "hf://": "needs the Hub; the same conversions run in tests/behaviour/test_published_checkpoints.py",
    "make ": "the targets install an environment; tests/examples/test_quickstart.py runs the quickstart",
    "pip install": "needs a package index",
    "source ": "of the user's own shell",
    "pre-commit ": "its hooks are the commands of `make quality`",
    "-m pytest": "these are the tests",
    "--bbox": "asks a catalog; tests/behaviour/test_place_to_map.py asks one on the loopback interface",
    "prithvi-hf demo": "serves until it is stopped; tests/demo/test_app.py visits the page",
    "prithvi-hf serve": "serves until it is stopped; tests/serving and tests/cli/test_serve.py are its clients",
    "curl ": "needs a server; tests/serving/test_app.py sends the same",
    "cp -r demo": "of the user's own shell",
    "jupyter lab": "of the user's own browser; tests/examples/test_notebooks.py executes the notebooks",
    "demo/make_examples.py": "tests/demo/test_space.py runs it",
    "chips_of_": "tests/scenes/test_chip_scene.py runs the block",
    "hf upload": "needs the Hub",
    "finetune.py --help": "prints",
    "exported_int8": "tests/conversion/test_quantize_prithvi.py quantises models",
    "--report_to tensorboard trackio": "tests/training/test_trackers.py runs both trackers",
    "examples/accelerate/multi_gpu.yaml examples/finetune.py": "needs GPUs",
    "hf jobs": "needs the Hub's machines",
    "--seeds 0 1 2": "three trainings; tests/training/test_repeats.py runs two",
    "--folds 5": "five trainings; tests/training/test_fold_runs.py runs three",
    "sen1floods11 search.yaml": "twenty trainings; tests/training/test_search.py runs two",
    "torchrun --nproc_per_node 4 examples/finetune.py": "tests/training runs the script on two processes",
}
FEW_STEPS = flags(**{**QUICK, "max_steps": 1, "eval_steps": 1, "save_steps": 1, "num_sample_predictions": 0})
SMALL = flags(**SIZES, **HEADS)  # but for the baseline, which has one size
SMALL_PRETRAINING = flags(
    **{**pretrain_factory.SIZES, **pretrain_factory.QUICK, "max_steps": 1, "eval_steps": 1, "save_steps": 1},
    **{"dataloader_num_workers": 0, "dataloader_persistent_workers": False},
)
LAUNCHERS = ("hf", "accelerate", "torchrun", "srun", "python")
# Without --data_dir these download; the stand-in beside the page is a small copy.
DOWNLOADED = {"hls_burn_scars": "burns_data"}
DOWNLOADED |= dict.fromkeys(("sen1floods11", "sen1floods11_small", "sen1floods11_v2"), "DIR")

with_blocks = [page for page in PAGES if read_blocks(page)]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    return make_stand_ins(tmp_path_factory.mktemp("stand_ins") / "files")


@pytest.fixture
def folder(stand_ins, tmp_path, monkeypatch):
    """A folder of its own for a page, with every stand-in; the page's commands run there."""
    folder = Path(shutil.copytree(stand_ins, tmp_path / "page"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # what PYTHONPATH=. does
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load = prithvi_hf.data.load.load_dataset

    def load_small_copy(name, data_dir=None, *args, **options):
        return load(name, DOWNLOADED.get(name, data_dir) if data_dir is None else data_dir, *args, **options)

    monkeypatch.setattr(prithvi_hf, "load_dataset", load_small_copy)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks, ids=name_of)
def test_blocks_of_a_page_run_in_their_order(page, folder, hub, monkeypatch, request):
    if page.name == "hub.md":
        hub.redirect_this_process(monkeypatch)
    place = "http://127.0.0.1:8000"  # of a server that the page's command starts
    if page.name == "serving.md":
        server = start_server(folder / "server", folder / "floods", token=None)
        request.addfinalizer(server.stop)
        place = server.url
    if page.name == "export.md":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    exports = {} if find_spec("openvino") else {"export": "the extra openvino is not installed"}
    not_run = NOT_RUN | exports
    names = {"__name__": "page", "batches": [([[0, 1]], [[1, 1]])]}
    for block in read_blocks(page):
        if block.language == "bash":
            for command in read_commands(block.text):
                check_command(command, block)
                if not any(text in command.text for text in not_run):
                    run_command(command, block)
        elif block.language == "python":
            if block.title:  # a module of the user's, which commands name
                (folder / block.title).write_text(block.text)
            # The empty lines before it make the line numbers of a traceback those of the page.
            text = block.text.replace("http://127.0.0.1:8000", place)
            exec(compile("\n" * (block.line - 1) + text, block.page, "exec"), names)
        elif block.language == "yaml":
            path = folder / (block.title or "untitled.yaml")
            path.write_text(block.text)
            assert yaml.safe_load(block.text), block
            read_recipe(path)
        else:
            assert block.language == "text", f"{block}: no test knows blocks of {block.language}"


def check_command(command: Command, block: Block) -> None:
    """Read a command line as the program does, without running it."""
    where = f"{block}: {command.text}"
    for option, value in zip(command.launcher, command.launcher[1:], strict=False):
        assert option != "--config_file" or (ROOT / value).is_file(), f"{where}: there is no {value}"
    assert not command.launcher or command.launcher[0] in LAUNCHERS, f"{where}: an unknown launcher"
    if command.program == "prithvi-hf":
        with usage_errors_of(where):
            build_parser().parse_args(command.arguments)
    elif command.program == "finetune" and "--help" not in command.arguments:
        with usage_errors_of(where):
            parse_arguments([*command.arguments, "--use_cpu", "true"])
    elif command.program == "pretrain":
        with usage_errors_of(where):
            parse_pretrain_arguments([*command.arguments, "--use_cpu", "true"])
    elif command.program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(command.arguments) <= set(targets), f"{where}: no such target"
    elif command.program == "pip":
        extras = [extra for group in re.findall(r"\[(.*?)\]", command.text) for extra in group.split(",")]
        assert all(re.search(rf"^{extra} =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE) for extra in extras)
    else:
        assert any(text in command.text for text in NOT_RUN), f"{where}: no test knows this command"


@contextlib.contextmanager
def usage_errors_of(where: str):
    try:
        yield
    except SystemExit:
        pytest.fail(f"{where}: the parser refuses it")


def run_command(command: Command, block: Block) -> None:
    """Run a command line, a training with few steps of a small model."""
    if command.program == "finetune":
        without_heads = flags(**SIZES) if "scene_classification" in command.arguments else SMALL
        small = [] if "--architecture" in command.arguments else without_heads
        words = [*command.arguments, *small, *FEW_STEPS, *data_of(command)]
        assert finetune.main(words) == 0, f"{block}: {command.text}"
        return
    if command.program == "pretrain":
        assert pretrain.main([*command.arguments, *SMALL_PRETRAINING]) == 0, f"{block}: {command.text}"
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run_cli(command.arguments) == 0, f"{block}: {command.text}"
    if command.stdout is not None:
        Path(command.stdout).write_text(printed.getvalue())


def data_of(command: Command) -> list[str]:
    """The stand-in for a dataset that the command would download."""
    words = command.arguments
    name = words[words.index("--config") + 1]
    return ["--data_dir", DOWNLOADED[name]] if name in find_packaged_recipes() and "--data_dir" not in words else []


def test_every_reason_not_to_run_a_command_is_needed():
    texts = [line.text for page in with_blocks for block in read_blocks(page) for line in commands_of(block)]
    unused = [text for text in NOT_RUN if not any(text in line for line in texts)]
    assert not unused


def commands_of(block: Block) -> list[Command]:
    return read_commands(block.text) if block.language == "bash" else []


def test_commands_are_read_as_a_shell_reads_them():
    [command] = read_commands(
        "OMP_NUM_THREADS=2 torchrun --nproc_per_node 8 -m prithvi_hf.cli stats \\\n  'a b' > c.yaml # d\n"
    )
    assert command.launcher == ("torchrun", "--nproc_per_node", "8")
    assert (command.program, command.arguments, command.stdout) == ("prithvi-hf", ("stats", "a b"), "c.yaml")
