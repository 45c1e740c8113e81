# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of samples in TensorBoard and trackio, beside the figures that transformers' callbacks send there."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, get_reporting_integration_callbacks
from transformers.utils import logging

from prithvi_hf.training.sample_pictures import PLOTS


if TYPE_CHECKING:
    from prithvi_hf.training.trainer import PrithviTrainer

logger = logging.get_logger(__name__)

_EXTRAS = {"tensorboard": "tensorboard", "trackio": "trackio"}
"""Trackers that get pictures, and the extra of this package that installs each."""


def check_trackers(args: TrainingArguments) -> None:
    """Refuse a tracker of `report_to` that is unknown or not installed, before anything else is done.

    Raises:
        ValueError: With what was expected, and how to install it.
    """
    for name in args.report_to or ():
        get_reporting_integration_callbacks([name])  # a ValueError names those that there are
        if name in _EXTRAS and find_spec(name) is None:
            raise ValueError(
                f"Expected the package of --report_to {name}, found none. Install it by "
                f"`pip install 'prithvi_hf[{_EXTRAS[name]}]'`, or leave the option out."
            )


class LogSamplePictures(TrainerCallback):
    """After each evaluation of a training, draw some chips beside labels, predictions and errors for the trackers.

    The chips are the same each time, spread evenly over the evaluation split. The first process alone predicts them,
    so this works beside any number of others, but not where each process holds a part of the weights.
    """

    def __init__(self, trainer: "PrithviTrainer", num_samples: int) -> None:
        self.trainer, self.num_samples = trainer, num_samples
        trackers = trainer.callback_handler.callbacks
        self.tensorboard = next((one for one in trackers if isinstance(one, TensorBoardCallback)), None)
        self.trackio = next((one for one in trackers if isinstance(one, TrackioCallback)), None)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called in every process; pictures of what is evaluated after the training are files beside the model."""
        trainer = self.trainer
        if not (state.is_world_process_zero and trainer.is_in_train):
            return
        from prithvi_hf.outputs.figures import save_picture

        with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:
            path = Path(folder) / "samples.png"
            figure = PLOTS[trainer.model.task](
                trainer.model,
                trainer.processing_class,
                trainer.eval_dataset,
                self.num_samples,
                trainer.args.eval_window,
                trainer.args.eval_overlap,
                errors=True,
            )
            save_picture(figure, path)
            writer = None if self.tensorboard is None else self.tensorboard.tb_writer
            if writer is not None:
                from matplotlib.image import imread

                writer.add_image("eval/samples", imread(path)[..., :3], state.global_step, dataformats="HWC")
                writer.flush()
            if self.trackio is not None and self.trackio._initialized:
                import trackio

                caption = f"step {state.global_step}: scene, label, prediction, error"
                picture = trackio.Image(str(path), caption=caption)
                trackio.log({"eval/samples": picture, "train/global_step": state.global_step})


def add_sample_pictures(trainer: "PrithviTrainer", num_samples: int) -> None:
    """Have a trainer draw pictures of samples, where a tracker takes them; not of weights that are in parts."""
    if num_samples < 1 or trainer.eval_dataset is None or not {*(trainer.args.report_to or ())} & _EXTRAS.keys():
        return
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        logger.warning_once(
            "Trackers get no pictures of samples where each process holds a part of the weights (FSDP, DeepSpeed); "
            "sample_predictions.png is drawn at the end."
        )
        return
    trainer.add_callback(LogSamplePictures(trainer, num_samples))
