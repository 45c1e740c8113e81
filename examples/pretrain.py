# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Continue the pretraining of Prithvi on your own scenes, without labels.

One process (CPU or one GPU):

    python examples/pretrain.py --config pretrain --model prithvi-mae --scenes SCENES --output_dir OUT

Many GPUs, one or more machines (settings in examples/accelerate):

    accelerate launch --config_file examples/accelerate/multi_gpu.yaml examples/pretrain.py --config pretrain ... --output_dir OUT
    torchrun --nproc_per_node 2 examples/pretrain.py --config pretrain ... --output_dir OUT

Without this file, where the package is installed, the same is `prithvi-hf pretrain --config pretrain ...`.

`--scenes` takes folders, quoted globs and lists as `prithvi-hf predict` does; `--model FOLDER_OR_HUB_ID` starts from a
converted masked autoencoder or backbone instead of random weights. `--resume_from_checkpoint true` continues after an
interruption.

At the end OUT holds the masked autoencoder, its image processor, a model card (README.md), all_results.json,
learning_curves.png, sample_reconstructions.png and recipe.yaml. `prithvi-hf finetune --model OUT ...` starts from it.
"""  # noqa: E501

import sys

from prithvi_hf.training.finetune import train_and_save
from prithvi_hf.training.pretrain import PretrainingRun, evaluate, main, report


def execute(run: PretrainingRun) -> None:
    """Go through the steps of a run; change them for one of your own.

    Before this `main` has read the command line and `setup` has built the model, its image processor and the trainer
    and opened every scene, so that what is not as expected ended the run with one message and nothing written.

    Args:
        run ([`PretrainingRun`]): The recipe with its options, the trainer and the windows of the scenes.
    """
    if run.recipe.training.do_train:
        train_and_save(run)  # checkpoints on the way; at the end the model, its image processor and the recipe
    metrics = evaluate(run)  # the same windows with the same patches hidden, whatever the run
    report(run, metrics)  # pictures and model card, and the upload where --push_to_hub asks for it


if __name__ == "__main__":
    sys.exit(main(execute=execute))
