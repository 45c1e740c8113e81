# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The main job from end to end, on generated flood scenes: fine-tune, evaluate, map. Minutes on two CPU cores.

    python examples/quickstart.py --output_dir quickstart

Each step is a command that you can run on your own data; it is printed before it runs.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from synthetic_floods import best_index_threshold_iou, generate_dataset

from prithvi_hf.data import load_dataset


EXAMPLES = Path(__file__).resolve().parent
CHIPS = {"num_train": 200, "num_validation": 20, "num_test": 40}
CHIP_SIZE = 128
SEED = 2  # its scene to map has clouds, haze, a swath edge and a flooded river
STEPS = 400
EXPECTED_MEAN_IOU = 0.85


def run(title: str, command: list[str]) -> None:
    """Print a step and its command, and run it with this Python.

    Args:
        title (`str`): What the step does.
        command (`list[str]`): The words after `python`.

    Raises:
        SystemExit: The command fails; its exit status is passed on.
    """
    print(f"\n=== {title}\n$ python {shlex.join(command)}\n", flush=True)
    status = subprocess.run([sys.executable, *command], check=False).returncode  # noqa: S603 - our own commands
    if status:
        raise SystemExit(status)


def index_baseline(data_dir: Path) -> tuple[str, float]:
    """The index whose best threshold maps the test chips best, and its mean IoU.

    The threshold is chosen on the very chips that it is scored on, so nothing of its kind can do better.

    Args:
        data_dir (`Path`): The generated dataset.
    """
    test = load_dataset("geotiff_folder", data_dir, split="test", image_suffix="_image.tif", mask_suffix="_mask.tif")
    images, masks = zip(*((row["image"].read(), row["mask"].read()[0]) for row in test), strict=True)
    scores = best_index_threshold_iou(images, masks)
    best = max(scores, key=lambda name: scores[name].mean_iou)
    return best, scores[best].mean_iou


def main(arguments: list[str] | None = None) -> int:
    """Run all steps; returns 0 when the model is as good as it should be."""
    parser = argparse.ArgumentParser(description="Generate chips, fine-tune, evaluate and map a scene.")
    parser.add_argument("--output_dir", type=Path, default=Path("quickstart"), help="folder for everything")
    parser.add_argument("--max_steps", type=int, default=STEPS, help="training steps; fewer are not held to a score")
    options = parser.parse_args(arguments)
    folder = options.output_dir
    data, model = folder / "data", folder / "model"

    print("=== Generating flood scenes", flush=True)
    generate_dataset(data, **CHIPS, chip_size=CHIP_SIZE, seed=SEED)
    recipe = ["--config", str(EXAMPLES / "configs" / "quickstart.yaml")]
    finetune = [str(EXAMPLES / "finetune.py"), *recipe, "--data_dir", str(data), "--output_dir", str(model)]
    finetune += ["--max_steps", str(options.max_steps)]
    run("Fine-tuning a small model and evaluating it", finetune)
    scene = ["--frames", str(data / "scene.tif"), "--output", str(folder / "map.tif")]
    picture = ["--quicklook", str(folder / "map.png")]
    run("Mapping a scene", ["-m", "prithvi_hf.cli", "predict", "--model", str(model), *scene, *picture])
    good = summarise(folder)
    return 0 if good or options.max_steps < STEPS else 1


def summarise(folder: Path) -> bool:
    """Print the score beside the baseline's, and where everything is; returns whether the score is good."""
    results = json.loads((folder / "model" / "all_results.json").read_text())
    score, water = results["test_mean_iou"], results["test_per_category_iou"][1]
    index, baseline = index_baseline(folder / "data")
    print(
        f"""
=== Done
held-out mean IoU  {score:.3f}   (water IoU {water:.3f})
best index          {baseline:.3f}   ({index}, at the threshold that fits these chips best)

chips and scene     {folder / "data"}
model               {folder / "model"}   (card: README.md, figures: all_results.json)
learning curves     {folder / "model" / "learning_curves.png"}
sample predictions  {folder / "model" / "sample_predictions.png"}
map                 {folder / "map.tif"}   (quicklook: {folder / "map.png"})
"""
    )
    good = score >= max(EXPECTED_MEAN_IOU, baseline)
    if not good:
        print(f"quickstart: the score is below {EXPECTED_MEAN_IOU} or the index", file=sys.stderr)
    return good


if __name__ == "__main__":
    sys.exit(main())
