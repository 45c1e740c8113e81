"""Fine-tuning from Parquet shards: two processes share every epoch, and a run goes on in the middle of one."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
from datasets import concatenate_datasets
from datasets.table import embed_table_storage

from prithvi_hf.data import load_dataset
from tests.finetune_factory import command_line, finetune, make_chips, run, run_in_two_processes


pytestmark = pytest.mark.slow


# A run that writes down, for each process, the epoch and the chips of each batch that it reads.
RECORDED = """
import os, sys
from prithvi_hf.data.streaming import StreamedCrops
from prithvi_hf.training.finetune import main

plain, name = StreamedCrops.__getitems__, sys.argv[1]

def record(self, indices):
    with open(f"{name}.{os.environ['RANK']}", "a") as file:
        file.write(json.dumps([self.epoch, list(indices)]) + "\\n")
    return plain(self, indices)

StreamedCrops.__getitems__ = record
sys.exit(main(sys.argv[2:]))
""".replace("import os", "import json, os")
OPTIONS = {"dataset": "parquet", "dataset_options": None, "streaming": True, "shuffle_buffer": 3, "max_steps": 4}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards of five training chips and three to evaluate."""
    root = tmp_path_factory.mktemp("streamed")
    chips = load_dataset("sen1floods11", make_chips(root / "chips"), cache_dir=str(root / "cache"))
    parts = {"train": concatenate_datasets([chips["train"], chips["bolivia"]]), "validation": chips["validation"]}
    (root / "parquet").mkdir()
    for name, part in parts.items():
        embedded = part.with_format("arrow").map(embed_table_storage, batched=True, keep_in_memory=True)
        embedded.to_parquet(root / "parquet" / f"{name}-00000-of-00001.parquet", batch_size=2)
    return root / "parquet"


def start_two(folder, shards, output, **options):
    words = command_line(shards, output, **{**OPTIONS, "do_predict": False, "save_strategy": "steps", **options})
    (folder / "recorded.py").write_text(RECORDED)
    run_in_two_processes(folder, folder / "recorded.py", folder / output.name, *words)
    return [
        [json.loads(line) for line in (folder / f"{output.name}.{rank}").read_text().splitlines()] for rank in range(2)
    ]


def test_two_processes_see_every_chip_once_an_epoch_and_resume_in_the_middle_of_one(shards, tmp_path):
    options = {"per_device_train_batch_size": 1, "save_steps": 1, "save_total_limit": None, "eval_strategy": "no"}
    options |= {"load_best_model_at_end": False}
    whole = start_two(tmp_path, shards, tmp_path / "whole", **options)
    for epoch in range(2):
        chips = [chip for rank in whole for own, batch in rank if own == epoch for chip in batch]
        assert sorted(chips) == [0, 1, 2, 3, 4]
    assert [len(rank) for rank in whole] == [4, 4]
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    resumed = start_two(tmp_path, shards, tmp_path / "resumed", **options, resume_from_checkpoint="true")
    assert [rank[-1:] for rank in whole] == resumed  # the one step that was missing, and no chip before it
    weights = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_one_process_streams_trains_and_evaluates(shards, tmp_path):
    results = run(shards, tmp_path / "OUT", **OPTIONS, do_predict=False, check="sample")
    assert 0 <= results["eval_mean_iou"] <= 1
    assert (tmp_path / "OUT" / "sample_predictions.png").is_file()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_chip_ends_the_run_with_its_name(shards, tmp_path, capfd, workers):
    damaged = shutil.copytree(shards, tmp_path / "parquet")
    table = pq.read_table(damaged / "train-00000-of-00001.parquet").to_pylist()
    table[1]["image"]["bytes"] = table[1]["image"]["bytes"][:500]
    schema = pq.read_schema(damaged / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(table, schema), damaged / "train-00000-of-00001.parquet", row_group_size=2)
    options = {**OPTIONS, "do_predict": False, "dataloader_num_workers": workers, "per_device_train_batch_size": 1}
    assert finetune.main(command_line(damaged, tmp_path / "OUT", **options)) == 2
    message = capfd.readouterr().err.strip().splitlines()[-1]
    found = f"{table[1]['id']}_S2Hand.tif: expected a GeoTIFF"
    assert f"error: Expected every chip of the stream to be readable, found: {found}" in message
