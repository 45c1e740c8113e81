# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The work of `prithvi-hf stats`: from the options of the command line to a recipe of statistics."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import BAND_OPTIONS, Commands, add_command
from prithvi_hf.data.builders import DATASETS


if TYPE_CHECKING:
    import datasets

    from prithvi_hf.data.statistics_report import StatisticsReport
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
    from prithvi_hf.training.recipe import Recipe


_EPILOG = """examples:
  prithvi-hf stats my_chips --config my.yaml --output stats.yaml
  prithvi-hf stats my_chips --dataset_options '{"image_suffix": "_image.tif", "mask_suffix": "_mask.tif"}' > stats.yaml
then train with
  accelerate launch examples/finetune.py --config my.yaml stats.yaml ...

Chips that cannot be read are named after the pass, nothing is written, and the exit status is 2; --skip_unreadable
leaves them out and lists them in the recipe. Where training would refuse masks, class weights are left out and
the exit status is 1.
"""
# Options of the command line that are options of a recipe, and win over those of --config.
RECIPE_OPTIONS = (
    *("task", "target_rescale_factor", "target_rescale_offset", "target_nodata_value", "target_range"),
    *("dataset", "dataset_options", "class_names", "bands", "band_indices", "band_map", "band_names", "num_frames"),
    *("rescale_factor", "rescale_offset", "nodata_value", "ignore_values", "label_map", "do_reduce_labels"),
)


def add_parser(commands: Commands) -> None:
    """Describe `stats`."""
    text = "measure a dataset: band statistics, class weights, bad labels, as a recipe that --config takes"
    parser = add_command(commands, "stats", text, " Every file is read once.", _EPILOG)
    add = parser.add_argument
    add("data_dir", metavar="DIR", help="folder of the dataset")
    add(
        "--config",
        nargs="+",
        default=[],
        metavar="YAML",
        help="recipes that say how files are read; options win",
    )
    add("--split", default="train", help="split that gives statistics and weights (default train); all are checked")
    add("--output", metavar="YAML", help="file to write; without it the recipe goes to the standard output")
    add("--plot", metavar="PNG", help="also draw histograms of the bands and the fractions of the classes")
    add("--skip_unreadable", action="store_true", help="leave out chips that cannot be read, instead of failing")
    add("--quiet", action="store_true", help="print neither progress nor summary")
    add = parser.add_argument_group("how the files are read, as in recipes").add_argument
    names = ", ".join(DATASETS)
    add("--dataset", metavar="NAME", help=f"{names} (default: known by its files, else geotiff_folder)")
    add("--dataset_options", metavar="JSON", help='options of the dataset, e.g. \'{"mask_suffix": "_mask.tif"}\'')
    add(
        "--task",
        choices=("segmentation", "classification", "regression"),
        help="what is learned (default: the recipe's, else segmentation); values of a regression are measured",
    )
    add("--class_names", nargs="+", metavar="NAME", help="name of each class; other mask values are reported")
    add("--bands", nargs="+", metavar="NAME", help="bands to measure (default: as the files describe them)")
    for flag, settings in BAND_OPTIONS.items():
        add(flag, **settings)
    add("--num_frames", type=int, metavar="N", help="dates of a chip; the pixels of all dates are pooled by band")
    add("--rescale_factor", type=float, metavar="X", help="file values are multiplied by it, e.g. 0.0001")
    add("--rescale_offset", type=float, metavar="X", help="added after that")
    add("--nodata_value", type=float, metavar="X", help="file value that means nodata, besides tag and NaN")
    add("--ignore_values", nargs="+", type=int, metavar="VALUE", help="mask values that are not classes")
    add("--label_map", metavar="JSON", help="class number of mask values, e.g. '{\"255\": 1}' for masks of 0 and 255")
    add("--target_rescale_factor", type=float, metavar="X", help="values of a regression are file numbers times it")
    add("--target_rescale_offset", type=float, metavar="X", help="added after that")
    add("--target_nodata_value", type=float, metavar="X", help="number in these files that means no value")
    add("--target_range", nargs=2, type=float, metavar="X", help="smallest and largest value that counts")
    add("--do_reduce_labels", action="store_true", default=None, help="masks hold 1..n for classes 0..n-1")


def run(options: argparse.Namespace) -> int:
    """Measure a dataset and write what was found, or nothing where chips cannot be read; 1 for masks to correct."""
    import datasets

    from prithvi_hf.data.load import load_dataset
    from prithvi_hf.data.statistics_report import check_readable, write_statistics_plot
    from prithvi_hf.outputs.cog import check_output_path, complete_or_absent

    output, plot = options.output, options.plot
    if output is not None:
        check_output_path(output, purpose="recipe")
    if plot is not None:
        check_output_path(plot, purpose="plot", suffixes=(".png",))
    if output is not None and plot is not None and Path(output).resolve() == Path(plot).resolve():
        raise ValueError(f"--output and --plot: expected two files, found {output} for both.")

    recipe = read_stats_recipe(options)
    dataset_options = recipe.data.dataset_options if isinstance(recipe.data.dataset_options, dict) else {}
    # Reading the tables takes no time; their progress bars would hide that of the pass.
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        splits = load_dataset(recipe.data.dataset, options.data_dir, **dataset_options)
    finally:
        if not shown:
            datasets.enable_progress_bars()
    if options.split not in splits:
        raise ValueError(f"--split {options.split}: expected one of the splits {', '.join(splits)} of the dataset.")
    report = measure(splits, recipe, options)
    if not options.skip_unreadable:
        check_readable(report.splits)

    if plot is not None:
        write_statistics_plot(plot, report)
    if output is None:
        print(report.recipe(), end="")
    else:
        with complete_or_absent(output) as part:
            part.write_text(report.recipe(), encoding="utf-8")
    for warning in report.warnings():
        print(f"prithvi-hf: warning: {warning}", file=sys.stderr)
    if not options.quiet:
        # The recipe alone goes to the standard output when it is not written to a file.
        screen = sys.stderr if output is None else sys.stdout
        print(report.summary(), file=screen)
        for purpose, path in (("recipe", output), ("plot", plot)):
            if path is not None:
                print(f"{purpose} written to {path}", file=screen)
    wrong = report.describe_wrong_labels()
    if wrong is not None:
        print(f"prithvi-hf stats: error: {wrong}", file=sys.stderr)
    return 0 if wrong is None else 1


def read_stats_recipe(options: argparse.Namespace) -> "Recipe":
    """Put the recipes of `--config`, later ones over earlier ones, and the options of the command line together.

    Without `--config`, the packaged recipe of a public dataset, named by --dataset or known by its files, comes first.
    """
    from prithvi_hf.data.load import detect_dataset
    from prithvi_hf.training.recipe import Recipe, find_packaged_recipes, read_recipe

    configs = options.config
    if not configs:
        name = options.dataset or detect_dataset(options.data_dir)
        configs = [name] if name in find_packaged_recipes() else []
        if configs and not options.quiet:
            print(f"prithvi-hf: reading the files by the recipe {name}; --config takes another.", file=sys.stderr)
    values: dict[str, Any] = {}
    for config in configs:
        values |= read_recipe(config).given
    values |= {name: getattr(options, name) for name in RECIPE_OPTIONS if getattr(options, name) is not None}
    if values.get("num_frames") is not None and values["num_frames"] < 1:
        raise ValueError(f"num_frames: expected at least 1 date, found {values['num_frames']}.")
    return Recipe.from_values(values)


def measure(splits: "datasets.DatasetDict", recipe: "Recipe", options: argparse.Namespace) -> "StatisticsReport":
    """Measure every split, its files read as the recipe says."""
    from prithvi_hf.data.statistics import compute_statistics
    from prithvi_hf.data.statistics_report import StatisticsReport

    data, main = recipe.data, splits[options.split]
    if data.bands is None and recipe.model.model is None:
        for index in range(len(main)):
            try:  # the first chip that can be opened names the bands; the pass reports the others
                image = main[index]["image"]
            except (ValueError, OSError):
                if index == len(main) - 1:
                    raise
                continue
            data.bands = name_bands(image[0] if isinstance(image, list) else image, data.band_names)
            break
        else:
            raise ValueError("Expected at least one chip, found none.")
    if data.bands is not None:  # placeholders: those of the recipe may be of other bands
        data.image_mean, data.image_std = [0.0] * len(data.bands), [1.0] * len(data.bands)
    if data.class_names is None and data.task != "regression":
        data.class_names = getattr(main.features.get("mask"), "class_names", None)
    processor = recipe.build_image_processor()
    statistics = {
        name: compute_statistics(
            *(split, processor, processor.num_labels, name),
            with_histograms=options.plot is not None and name == options.split,
            show_progress=not options.quiet,
        )
        for name, split in splits.items()
    }
    source = f"{data.dataset} in {options.data_dir}"
    return StatisticsReport(statistics, options.split, processor, source, data.class_names, recipe.model.loss)


def name_bands(raster: "GeoTiffRaster", descriptions: Sequence[str] | None = None) -> list[str]:
    """Name the bands of a file by its descriptions, or others in their place.

    They are the model's names where these can be told, else as described.
    """
    from prithvi_hf.models.prithvi.bands_prithvi import CANONICAL_BANDS, is_undescribed, resolve_bands
    from prithvi_hf.models.prithvi.pixel_values_prithvi import has_alpha

    texts = tuple(raster.descriptions[:-1] if has_alpha(raster.descriptions) else raster.descriptions)
    count, texts = len(texts), tuple(descriptions or texts)
    remedy = "Name the bands with --bands, or give a recipe that does with --config."
    if len(texts) not in (count, raster.count):
        raise ValueError(
            f"{raster.name}: expected band_names for {count} bands, found {', '.join(map(str, texts))}. Name all "
            "bands of a file, in its order."
        )
    if is_undescribed(texts):
        raise ValueError(
            f"{raster.name}: expected descriptions that name its bands, found {count} bands without. {remedy} "
            "Or name all bands of a file with --band_names. Of a file that stacks dates, name those of one date and "
            "add --num_frames."
        )
    unnamed = [str(number) for number, text in enumerate(texts, start=1) if not text]
    doubles = sorted({text for text in texts if text and texts.count(text) > 1})
    if unnamed or doubles:
        found = f"bands {', '.join(unnamed)} of {len(texts)} without" if unnamed else f"{', '.join(doubles)} twice"
        raise ValueError(f"{raster.name}: expected a description of its own for each band, found {found}. {remedy}")
    names: list[list[str]] = [[] for _ in texts]
    for band in CANONICAL_BANDS:
        with suppress(ValueError):  # it is not there, or the descriptions leave it open
            names[resolve_bands(texts, len(texts), [band])[0]].append(band)
    return [found[0] if len(found) == 1 else str(text) for found, text in zip(names, texts, strict=True)]
