# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small models on the real Sen1Floods11 chips of a folder: two decoders, the baseline U-Net, and MNDWI > 0.

Run alone: `python -m benchmarks.real_chips --data_dir DIR --output_dir OUT [--seeds 0 1 2] [--max_steps 600]`. Every
model has the same chips, steps, batch and learning rate, and random weights; one has the augmentation and the averaged
weights of the recipe sen1floods11_small. A run whose folder in OUT is
finished is not repeated, so that an interrupted comparison goes on where it was. A crop of each split is drawn in OUT.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prithvi_hf import (
    GeospatialSegmentationPipeline,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    load_dataset,
)
from prithvi_hf.models.prithvi.segmentation_map_prithvi import NODATA_CLASS, SegmentationMap
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.quicklook import PictureRow, draw_pictures, measure_width, paint_classes
from prithvi_hf.training import finetune
from prithvi_hf.training.recipe import read_recipe


_ENCODER = "--hidden_size 256 --num_hidden_layers 4 --num_attention_heads 8 --use_auxiliary_head false"
MODELS = {
    "FCN": f"{_ENCODER} --neck_hidden_size 128 --head_hidden_size 64",
    "pyramid + UNet": f"{_ENCODER} --decode_head unet --unet_channels 128 64 32 16",
    "baseline U-Net": "--architecture unet",
    "FCN, augmented": "--load_best_model_at_end false",
}
"""Options of each model, by its name in the table."""
RECIPES = {"FCN, augmented": "sen1floods11_small"}
"""Recipes of models that are not of sen1floods11; they hold the model too."""
GROUPS = {"validation + test": ("validation", "test"), "held out": ("bolivia",)}
"""Splits whose pixels are pooled, by the name of a column."""
PATCH, CROP, WATER = 16, 160, 1


def train(name: str, seed: int, options: argparse.Namespace) -> Path:
    """Train a model with a seed unless that is done, and give its folder."""
    folder = options.output_dir / f"{name.replace(' + ', '_').replace(', ', '_').replace(' ', '_')}-{seed}"
    if not (folder / "all_results.json").is_file():
        words = ["--config", RECIPES.get(name, "sen1floods11"), *MODELS[name].split(), "--augmentation", "d4"]
        words += ["--warmup_steps", "40", "--learning_rate", str(options.learning_rate), "--report_to", "none"]
        words += ["--max_steps", str(options.max_steps), "--eval_steps", "0.1", "--save_steps", "0.1"]
        words += ["--data_dir", str(options.data_dir), "--output_dir", str(folder), "--seed", str(seed)]
        if finetune.main(words):
            raise SystemExit(f"{folder}: the run failed.")
    return folder


class Chip:
    """A chip, its labels (-100 where there is none), and its water by MNDWI > 0."""

    def __init__(self, row: Mapping[str, Any], processor: PrithviImageProcessor) -> None:
        self.image = row["image"]
        self.labels = np.asarray(processor([self.image], [row["mask"]], return_tensors="np")["labels"][0])
        green, swir = self.image.read(bands=[2, 11]).astype(np.float32)
        self.mndwi = (green > swir).astype(np.uint8)  # (green - swir) / (green + swir) > 0, and right for values of 0

    def find_crop(self) -> tuple[slice, slice]:
        """Find the square with both classes in the most even numbers; it begins in the middle of patches."""
        places = range(PATCH // 2, self.labels.shape[0] - CROP, 2 * PATCH)
        squares = [(slice(top, top + CROP), slice(left, left + CROP)) for top in places for left in places]
        return max(squares, key=lambda square: min((self.labels[square] == value).sum() for value in (0, WATER)))


def count_borders(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the borders between classes where there are labels: those on every 16th row or column, and all of them."""
    counts = np.zeros(2, dtype=np.int64)
    for values, valid in ((classes, labels >= 0), (classes.T, labels.T >= 0)):
        borders = (values[1:] != values[:-1]) & valid[1:] & valid[:-1]
        counts += [borders[PATCH - 1 :: PATCH].sum(), borders.sum()]
    return counts


def measure(chips: Mapping[str, list[Chip]], classes: Mapping[str, list[np.ndarray]]) -> list[float]:
    """Measure maps of all chips: water IoU of each of `GROUPS`, and the fraction of borders on every 16th line."""
    figures, borders = [], np.zeros(2, dtype=np.int64)
    for splits in GROUPS.values():
        both = either = 0
        for split in splits:
            for chip, found in zip(chips[split], classes[split], strict=True):
                valid, is_water = chip.labels >= 0, chip.labels == WATER
                both += ((found == WATER) & is_water).sum()
                either += (((found == WATER) | is_water) & valid).sum()
                borders += count_borders(found, chip.labels)
        figures.append(both / either)
    return [*figures, borders[0] / borders[1]]


def draw(path: Path, chip: Chip, maps: Mapping[str, SegmentationMap]) -> None:
    """Draw a crop of a chip: natural colours, label, and the map of each model."""
    some, square = next(iter(maps.values())), chip.find_crop()
    palette = class_palette(len(some.id2label), some.class_colors)
    classes = {"label": np.where(chip.labels < 0, NODATA_CLASS, chip.labels).astype(np.uint8)}
    classes |= {name: result.mask for name, result in maps.items()}
    pictures: dict[str, np.ndarray | None] = {"natural colours": None if some.rgb is None else some.rgb[square]}
    pictures |= {name: paint_classes(mask[square], palette) for name, mask in classes.items()}
    row = PictureRow(pictures, measure_width(some.crs, some.transform, CROP, CROP))
    present = set(np.unique(classes["label"][square]).tolist())
    names = some.id2label
    draw_pictures(
        path, [row], id2label=names, palette=palette, present=present, nodata_label="no label", panel_inches=2.6
    )


def main() -> None:
    """Train what is missing, print the table in Markdown, and draw maps of the first seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_chips", description="Small models on real chips.")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with Sen1Floods11, or some of its chips")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the runs and pictures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs (default 0 1 2)")
    parser.add_argument("--max_steps", type=int, default=600, help="steps of each run (default 600)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of every run (default 1e-3)")
    options = parser.parse_args()
    dataset: Any = load_dataset("sen1floods11", data_dir=options.data_dir)
    processor = read_recipe("sen1floods11").build_image_processor()
    splits = [split for names in GROUPS.values() for split in names]
    chips = {split: [Chip(row, processor) for row in dataset[split]] for split in splits}
    rows: dict[str, list[list[float]]] = {
        name: [measure(chips, {split: [getattr(chip, name) for chip in chips[split]] for split in splits})]
        for name in ("labels", "mndwi")
    }
    drawn: dict[str, dict[str, SegmentationMap]] = {split: {} for split in splits}
    for name in MODELS:
        for seed in options.seeds:
            model = PrithviForSemanticSegmentation.from_pretrained(train(name, seed, options)).eval()
            pipe = GeospatialSegmentationPipeline(model=model, image_processor=processor)
            maps = {split: [pipe(chip.image) for chip in chips[split]] for split in splits}
            title = f"{name}, {model.num_parameters() / 1e6:.1f} M parameters"
            rows.setdefault(title, []).append(
                measure(chips, {split: [result.mask for result in maps[split]] for split in splits})
            )
            for split in splits:
                drawn[split].setdefault(name, maps[split][0])
    print(
        f"| model | water IoU, {' | water IoU, '.join(GROUPS)} | class borders every {PATCH} px |\n|---|---|---|---|"
    )
    for name, figures in rows.items():
        cells = [
            f"{np.mean(column):.3f} ({', '.join(f'{value:.3f}' for value in column)})"
            for column in zip(*figures, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    for split in splits:
        draw(options.output_dir / f"real_chips_{split}.png", chips[split][0], drawn[split])


if __name__ == "__main__":
    main()
