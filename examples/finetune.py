# /// script
# requires-python = ">=3.11"
# dependencies = ["prithvi_hf[vision,vector,peft]"]
# ///
# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune Prithvi on georeferenced chips.

One process (CPU or one GPU):

    python examples/finetune.py --config examples/configs/sen1floods11.yaml --data_dir DIR --output_dir OUT

Many GPUs, one or more machines (settings in examples/accelerate):

    accelerate launch --config_file examples/accelerate/multi_gpu.yaml examples/finetune.py --config ... --output_dir OUT
    torchrun --nproc_per_node 2 examples/finetune.py --config ... --output_dir OUT

Without this file, where the package is installed, the same is `prithvi-hf finetune --config sen1floods11 ...`, and
`accelerate launch -m prithvi_hf.cli finetune ...` or `torchrun --nproc_per_node 2 -m prithvi_hf.cli finetune ...`.

With uv, which reads the lines at the top, it needs no installation, on this machine or as a job of the Hub:

    uv run examples/finetune.py --config ... --output_dir OUT
    hf jobs uv run --flavor a10g-small --secrets HF_TOKEN examples/finetune.py --config ... --push_to_hub true ...

Every option of the recipe and every field of TrainingArguments can be given on the command line and wins over the
file; of several files after --config the later ones win. `--model FOLDER_OR_HUB_ID` starts from a converted backbone
or a fine-tuned model instead of random weights. `--resume_from_checkpoint true` continues after an interruption.

At the end OUT holds the model, its image processor, a model card (README.md), all_results.json,
learning_curves.png, sample_predictions.png and recipe.yaml, every option that was given: `--config OUT/recipe.yaml
--output_dir OTHER` repeats the run.
"""  # noqa: E501

import sys

from prithvi_hf.training.finetune import Run, evaluate, main, report, train


def execute(run: Run) -> None:
    """Go through the steps of a run; change them for one of your own.

    Before this `main` has read the command line and `setup` has built the model, its image processor and the trainer
    and checked every chip, so that what is not as expected ended the run with one message and nothing written.

    Args:
        run ([`Run`]): The recipe with its options, the trainer and the chips.
    """
    if run.recipe.training.do_train:
        train(run)  # checkpoints on the way; at the end the best model, its image processor and the recipe
    metrics = evaluate(run)  # whole chips by sliding window; each counts once, whatever the number of processes
    report(run, metrics)  # pictures and model card, and the upload where --push_to_hub asks for it


if __name__ == "__main__":
    sys.exit(main(execute=execute))
