# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The files that a prediction can write: one record each in `OUTPUTS`.

Keywords of `predict_scene`, options of the command line, checks of names, the estimate of space, reports and summaries
go through the records, so that another output is one more record. The command line builds its help from them: what is
heavy is imported inside the functions.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.disk import check_writable_folder
from prithvi_hf.rasters import TIFF_SUFFIXES


if TYPE_CHECKING:
    from prithvi_hf.outputs.assemble import StagedMap


@dataclass(frozen=True)
class OutputOptions:
    """How outputs are written.

    Attributes:
        probabilities_dtype: "float32", or "uint8" for a quarter of the size; holds for confidence and entropy too.
        class_values: Class index to file value, 0 to 254, where the two differ.
        polygon_classes: Classes that are written as polygons, by name or file value; None for all.
        min_area: Square metres; smaller polygons are left out.
    """

    probabilities_dtype: str = "float32"
    class_values: Mapping[int, int] | None = None
    polygon_classes: Sequence[int | str] | None = None
    min_area: float = 0.0

    def __post_init__(self) -> None:
        from prithvi_hf.outputs.cog import check_probability_dtype

        check_probability_dtype(self.probabilities_dtype)


@dataclass(frozen=True)
class Output:
    """One file of a map."""

    name: str  # keyword of `predict_scene`, option of the command line, and what reports and messages call it
    metavar: str  # kind of file, for the help
    help: str
    suffixes: tuple[str, ...]  # that its name may have
    ending: str  # what the map's name without suffix gets where no name is given, suffix included
    needs: tuple[str, ...] = ()  # what strips keep for it besides the classes, see `assemble.make_products`
    raster: bool = False  # whether a GeoTIFF of what it needs is made for it; space is asked for that
    write: "Callable[[Path, StagedMap], object] | None" = None  # makes the file; None writes that GeoTIFF
    check_path: Callable[[Path], object] | None = None  # refuses a path, before anything is loaded
    check: "Callable[[StagedMap], object] | None" = None  # refuses a map, before the model runs
    of_classes: bool = False  # whether it is made of classes, which the map of a regression does not have


def resolve_paths(output: str | os.PathLike, asked: Mapping[str, str | os.PathLike | bool | None]) -> dict[str, Path]:
    """Name all files of a map.

    `asked` gives paths by names of other outputs; True takes the default name beside the map, a bare suffix such as
    "parquet" the default name with that suffix, None and False mean that it is not written.
    """
    paths = {"map": Path(output)}
    for record in OUTPUTS:
        value = asked.get(record.name)
        if value is True or f".{value}" in record.suffixes:
            default = paths["map"].with_name(f"{paths['map'].stem}{record.ending}")
            paths[record.name] = default if value is True else default.with_suffix(f".{value}")
        elif value is not None and value is not False:
            paths[record.name] = Path(value)
    return paths


def check_outputs(paths: Mapping[str, str | os.PathLike], inputs: Iterable[object], overwrite: bool) -> None:
    """Refuse outputs that cannot or must not be written, or that would replace each other or an input.

    What is not a path among the inputs is passed over. With `overwrite` existing files may be replaced; those of an
    interrupted run of the same map may always be.
    """
    from prithvi_hf.outputs.cog import check_output_path
    from prithvi_hf.outputs.staging import published_outputs

    inputs, seen = list(inputs), dict[str, str]()
    own = published_outputs(paths["map"])
    for output in OUTPUTS:
        if output.name not in paths:
            continue
        path, name = Path(paths[output.name]), output.name
        resolved = os.path.realpath(path)
        check_output_path(path, inputs, overwrite or resolved in own, name, output.suffixes)
        if output.check_path is not None:
            output.check_path(path)
        if resolved in seen:
            raise ValueError(f"The {name} and the {seen[resolved]} are the same file {path}: name two files.")
        seen[resolved] = name
        check_writable_folder(path.parent, f"the folder of the {name}")


def check_value_outputs(asked: Iterable[str], options: Mapping[str, object]) -> None:
    """Refuse outputs of a map of values that are made of classes, and options of classes, those of `OutputOptions`."""
    refused = [output.name for output in OUTPUTS if output.of_classes and output.name in asked]
    defaults = vars(OutputOptions()).items()
    refused += [name for name, default in defaults if options.get(name) and options[name] != default]
    if refused:
        possible = ", ".join(output.name for output in OUTPUTS if not output.of_classes)
        raise ValueError(
            f"Expected outputs of a regression model, which gives values, not classes ({possible}), found "
            f"{', '.join(refused)}. Leave {'it' if len(refused) == 1 else 'them'} out."
        )


def _check_vector_path(path: Path) -> None:
    """Refuse polygons whose packages are not installed."""
    from prithvi_hf.outputs.vector_files import check_vector_path

    check_vector_path(path)


def _check_polygons(strips: "StagedMap") -> None:
    """Refuse polygons without a place on Earth, or of classes that the map does not have."""
    from prithvi_hf.outputs.cog import file_values
    from prithvi_hf.outputs.polygons import check_polygon_options

    values, options = file_values(strips.id2label, strips.options.class_values), strips.options
    names = {value: str(strips.id2label[index]) for index, value in values.items()}
    check_polygon_options(strips.grid, names, options.polygon_classes, options.min_area)


def _write_polygons(path: Path, strips: "StagedMap") -> None:
    """Write the regions of the finished map."""
    from prithvi_hf.outputs.assemble import write_layer
    from prithvi_hf.outputs.cog import fraction_layer
    from prithvi_hf.outputs.polygons import write_polygons

    confidence, options = path.with_name("polygon_confidence.tif"), strips.options
    layer = fraction_layer("confidence", ["confidence"], ["probability of the class"], "float32")
    write_layer(confidence, layer, strips, optimized=False)
    write_polygons(
        path,
        strips.parts["map"],
        probabilities=confidence,
        classes=options.polygon_classes,
        min_area=options.min_area,
        show_progress=strips.show_progress,
    )
    confidence.unlink()


def _write_quicklook(path: Path, strips: "StagedMap") -> None:
    """Draw scene and map from what is left of them when they are thinned."""
    import numpy as np

    from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands, stretch_colors
    from prithvi_hf.outputs.quicklook import thumbnail_step, write_quicklook, write_value_quicklook

    grid, name = strips.grid, "classes" if strips.quantity is None else "values"
    step = thumbnail_step(grid.height, grid.width)
    parts = [rows[-start % step :: step, ::step] for start, rows in zip(strips.starts, strips.load(name), strict=True)]
    colors = np.concatenate(list(strips.load("thumbnail")), axis=1)
    _, is_natural = choose_color_bands(strips.bands)
    scene: dict[str, Any] = {
        "rgb": stretch_colors(colors, np.isfinite(colors).all(axis=0), is_natural),
        "rgb_title": strips.rgb_title,
        "crs": grid.crs,
        "transform": grid.transform,
        "step": step,
    }
    if strips.quantity is not None:
        write_value_quicklook(path, np.concatenate(parts), title=strips.quantity.title, **scene)
        return
    write_quicklook(
        path,
        np.concatenate(parts),
        id2label=strips.id2label,
        class_colors=strips.class_colors,
        present=np.flatnonzero(strips.counts).tolist(),
        **scene,
    )


def _write_report(path: Path, strips: "StagedMap") -> None:
    """Write what is known of the run by now."""
    import json

    path.write_text(json.dumps(strips.report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


OUTPUTS: list[Output] = [
    Output("map", "TIF", "uint8 classes, 255 = nodata, or float32 values", TIFF_SUFFIXES, ".tif", raster=True),
    Output(
        name="probabilities",
        metavar="TIF",
        help="class probabilities, one band per class",
        suffixes=TIFF_SUFFIXES,
        ending="_probabilities.tif",
        needs=("probabilities",),
        raster=True,
        of_classes=True,
    ),
    Output(
        name="confidence",
        metavar="TIF",
        help="probability of the class of each pixel; `prithvi-hf calibrate` makes it one that can be believed",
        suffixes=TIFF_SUFFIXES,
        ending="_confidence.tif",
        needs=("confidence",),
        raster=True,
        of_classes=True,
    ),
    Output(
        name="entropy",
        metavar="TIF",
        help="entropy of the probabilities, 0 (certain) to 1 (all classes equally probable)",
        suffixes=TIFF_SUFFIXES,
        ending="_entropy.tif",
        needs=("entropy",),
        raster=True,
        of_classes=True,
    ),
    Output(
        name="polygons",
        metavar="FILE",
        help="regions of each class with area in m2 and mean probability, .gpkg, .parquet or .geojson",
        suffixes=(".gpkg", ".parquet", ".geojson"),
        ending=".gpkg",
        needs=("confidence",),
        raster=True,
        write=_write_polygons,
        check_path=_check_vector_path,
        check=_check_polygons,
        of_classes=True,
    ),
    Output(
        name="quicklook",
        metavar="PNG",
        help="picture of scene and map with a legend or a colour bar",
        suffixes=(".png",),
        ending=".png",
        needs=("thumbnail",),
        write=_write_quicklook,
    ),
    Output(
        name="report",
        metavar="JSON",
        help="what was done: classes or statistics, files, unreadable blocks, seconds (always with --scenes)",
        suffixes=(".json",),
        ending=".json",
        write=_write_report,
    ),
]
"""In the order in which they are made: the map first, as others are made of it, and the report of all others last."""
