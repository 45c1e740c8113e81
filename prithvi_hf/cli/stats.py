# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The work of `prithvi-hf stats`: from the options of the command line to a recipe of statistics."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import Commands


if TYPE_CHECKING:
    import datasets

    from prithvi_hf.data.statistics_report import StatisticsReport
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
    from prithvi_hf.training.recipe import Recipe
    from prithvi_hf.training.recipe_options import DataArguments


_EPILOG = """examples:
  prithvi-hf stats my_chips --config my.yaml --output stats.yaml
  prithvi-hf stats my_chips --dataset_options '{"image_suffix": "_image.tif", "mask_suffix": "_mask.tif"}' > stats.yaml
then train with
  accelerate launch examples/finetune.py --config my.yaml stats.yaml ...

Chips that cannot be read are named after the pass, nothing is written, and the exit status is 2; --skip_unreadable
leaves them out and lists them in the recipe. Labels that are no class are reported and do not stop the command.
"""
# Options of the command line that are options of a recipe, and win over those of --config.
RECIPE_OPTIONS = (
    *("dataset", "dataset_options", "class_names", "bands", "band_indices", "num_frames", "rescale_factor"),
    *("rescale_offset", "nodata_value", "ignore_values", "do_reduce_labels"),
)


def add_parser(commands: Commands) -> None:
    """Describe `stats`."""
    text = "measure a data set: band statistics, class weights, bad labels, as a recipe that --config takes"
    parser = commands.add_parser(
        "stats",
        help=text,
        description=text[0].upper() + text[1:] + ". Every file is read once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data_dir", metavar="DIR", help="folder of the data set")
    add("--config", nargs="+", default=[], metavar="YAML", help="recipes that say how files are read; flags win")
    add("--split", default="train", help="split that gives statistics and weights (default train); all are checked")
    add("--output", metavar="YAML", help="file to write; without it the recipe goes to the standard output")
    add("--plot", metavar="PNG", help="also draw histograms of the bands and the shares of the classes")
    add("--skip_unreadable", action="store_true", help="leave out chips that cannot be read, instead of failing")
    add("--quiet", action="store_true", help="print neither progress nor summary")
    _add_reading_options(parser.add_argument_group("how the files are read, as in recipes").add_argument)
    parser.set_defaults(run=run)


def _add_reading_options(add: Any) -> None:
    """Describe the options of `stats` that are options of recipes."""
    add(
        "--dataset",
        metavar="NAME",
        help="sen1floods11, hls_burn_scars, ...; known by its files where they are a public data set's, or else "
        "geotiff_folder",
    )
    add("--dataset_options", metavar="JSON", help='options of the data set, e.g. \'{"mask_suffix": "_mask.tif"}\'')
    add("--class_names", nargs="+", metavar="NAME", help="name of each class; other mask values are reported")
    add("--bands", nargs="+", metavar="NAME", help="bands to measure (default: as the files describe them)")
    add("--band_indices", nargs="+", type=int, metavar="PLACE", help="their 0-based places in undescribed files")
    add("--num_frames", type=int, metavar="N", help="dates of a chip; the pixels of all dates are pooled by band")
    add("--rescale_factor", type=float, metavar="X", help="file values are multiplied by it, e.g. 0.0001")
    add("--rescale_offset", type=float, metavar="X", help="added after that")
    add("--nodata_value", type=float, metavar="X", help="file value that means no data, besides tag and NaN")
    add("--ignore_values", nargs="+", type=int, metavar="VALUE", help="mask values that are no class")
    add("--do_reduce_labels", action="store_true", default=None, help="masks hold 1..n for classes 0..n-1")


def run(options: argparse.Namespace) -> None:
    """Measure a data set and write what was found.

    Args:
        options: The options of `stats`.

    Raises:
        ValueError: If the options do not fit the data set, or chips cannot be read and `skip_unreadable` is not set;
            nothing is written then.
        OSError: If there is no such folder or recipe, or the output cannot be written.
    """
    from prithvi_hf.data.statistics_report import unreadable_message

    _check_outputs(options.output, options.plot)
    recipe = stats_recipe(options)
    splits = _load(options.data_dir, recipe.data)
    if options.split not in splits:
        raise ValueError(f"--split {options.split}: expected one of the splits {', '.join(splits)} of the data set.")
    report = measure(splits, recipe, options)
    problem = None if options.skip_unreadable else unreadable_message(report.splits)
    if problem is not None:
        raise ValueError(problem)
    _write(report, options)


def stats_recipe(options: argparse.Namespace) -> "Recipe":
    """Put the recipes of `--config`, later ones over earlier ones, and the options of the command line together.

    Args:
        options: The options of `stats`.

    Returns:
        The recipe, without the statistics of the bands, which are to be measured.

    Raises:
        ValueError: If a recipe is none, or an option has a value that it cannot have.
        OSError: If there is no such recipe.
    """
    from prithvi_hf.training.recipe import Recipe, read_recipe

    values: dict[str, Any] = {}
    for config in options.config or _default_recipes(options):
        values |= read_recipe(config).given
    values |= {name: getattr(options, name) for name in RECIPE_OPTIONS if getattr(options, name) is not None}
    if values.get("num_frames") is not None and values["num_frames"] < 1:
        raise ValueError(f"num_frames: expected a number of dates from 1 on, found {values['num_frames']}.")
    return Recipe.from_values(values)


def _default_recipes(options: argparse.Namespace) -> list[str]:
    """The packaged recipe of a public data set, named by --dataset or known by its files; none for other folders."""
    from prithvi_hf.data.load import detect_dataset
    from prithvi_hf.training.recipe import find_packaged_recipes

    name = options.dataset or detect_dataset(options.data_dir)
    if name not in find_packaged_recipes():
        return []
    if not options.quiet:
        print(f"prithvi-hf: reading the files by the recipe {name}; --config takes another.", file=sys.stderr)
    return [name]


def measure(splits: "datasets.DatasetDict", recipe: "Recipe", options: argparse.Namespace) -> "StatisticsReport":
    """Measure every split.

    Args:
        splits: The data set.
        recipe: How its files are read.
        options: `split`, `plot`, `quiet` and `data_dir`.

    Returns:
        The figures.
    """
    from prithvi_hf.data.statistics import compute_statistics
    from prithvi_hf.data.statistics_report import StatisticsReport

    data = recipe.data
    if data.bands is None and recipe.model.model is None:
        data.bands = name_bands(_first_raster(splits[options.split]))
    if data.bands is not None:  # placeholders: those of the recipe may be of other bands
        data.image_mean, data.image_std = [0.0] * len(data.bands), [1.0] * len(data.bands)
    if data.class_names is None:
        data.class_names = getattr(splits[options.split].features["mask"], "class_names", None)
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


def name_bands(raster: "GeoTiffRaster") -> list[str]:
    """Name the bands of a file by its descriptions: by the model's names where they can be told, else as described.

    Args:
        raster: The file.

    Returns:
        A name for each band.

    Raises:
        ValueError: If the descriptions name no bands, or the same band twice.
    """
    from prithvi_hf.models.prithvi.bands_prithvi import CANONICAL_BANDS, is_undescribed

    texts, remedy = raster.descriptions, "Name the bands by --bands, or give a recipe that does by --config."
    if is_undescribed(texts):
        raise ValueError(
            f"{raster.name}: expected descriptions that name its bands, found {raster.count} bands without. {remedy} "
            "Of a file that stacks dates, name those of one date and add --num_frames."
        )
    unnamed = [str(number) for number, text in enumerate(texts, start=1) if not text]
    doubles = sorted({text for text in texts if text and texts.count(text) > 1})
    if unnamed or doubles:
        found = f"bands {', '.join(unnamed)} of {raster.count} without" if unnamed else f"{', '.join(doubles)} twice"
        raise ValueError(f"{raster.name}: expected a description of its own for each band, found {found}. {remedy}")
    places = {band: _place_of(band, texts) for band in CANONICAL_BANDS}
    by_place = {place: [band for band in places if places[band] == place] for place in set(places.values())}
    names = [by_place.get(place, ()) for place in range(raster.count)]
    return [found[0] if len(found) == 1 else text for found, text in zip(names, texts, strict=True)]


def _place_of(band: str, descriptions: Sequence[str]) -> int | None:
    """Where a band stands; None where it does not, or where the descriptions leave it open."""
    from prithvi_hf.models.prithvi.bands_prithvi import resolve_bands

    try:
        return resolve_bands(descriptions, len(descriptions), [band])[0]
    except ValueError:
        return None


def _check_outputs(output: str | None, plot: str | None) -> None:
    """Refuse outputs that cannot be written before the data set is read."""
    from prithvi_hf.outputs.cog import check_output_path

    for purpose, path in (("recipe", output), ("plot", plot)):
        if path is not None:
            check_output_path(path, purpose=purpose)
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise ValueError(f"--plot: expected a file name that ends in .png, found {plot}. The plot is written as PNG.")
    if output is not None and plot is not None and Path(output).resolve() == Path(plot).resolve():
        raise ValueError(f"--output and --plot: expected two files, found {output} for both.")


def _load(data_dir: str, data: "DataArguments") -> "datasets.DatasetDict":
    """Load the data set. Its tables are small; their progress bars would hide that of the pass."""
    import datasets

    from prithvi_hf.data.load import load_dataset

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return load_dataset(data.dataset, data_dir, **(data.dataset_options or {}))
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _first_raster(split: "datasets.Dataset") -> "GeoTiffRaster":
    """The first file of the first chip that has one that can be opened; its error where none can."""
    for index in range(len(split)):
        try:
            image = split[index]["image"]
        except (ValueError, OSError):
            if index == len(split) - 1:
                raise
            continue
        return image[0] if isinstance(image, list) else image
    raise ValueError("Expected at least one chip, found none.")


def _write(report: "StatisticsReport", options: argparse.Namespace) -> None:
    """Write recipe and plot, whole or not at all, and the summary beside them."""
    from prithvi_hf.outputs.cog import complete_or_absent

    if options.plot is not None:
        from prithvi_hf.data.statistics_report import write_statistics_plot

        write_statistics_plot(options.plot, report)
    text = report.recipe()
    if options.output is not None:
        with complete_or_absent(options.output) as part:
            part.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    for warning in report.warnings():
        print(f"prithvi-hf: warning: {warning}", file=sys.stderr)
    if not options.quiet:
        # The recipe alone goes to the standard output when it is not written to a file.
        print(report.summary(), file=sys.stdout if options.output is not None else sys.stderr)
        for purpose, path in (("recipe", options.output), ("plot", options.plot)):
            if path is not None:
                print(f"{purpose} written to {path}", file=sys.stdout if options.output is not None else sys.stderr)


__all__ = ["RECIPE_OPTIONS", "measure", "name_bands", "run", "stats_recipe"]
