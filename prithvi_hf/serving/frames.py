# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The frames of a job: files of clients, which nobody has looked at, opened as a scene within the limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import remote_message
from prithvi_hf.outputs.polygons import check_polygon_options
from prithvi_hf.outputs.registry import check_value_outputs
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.predict_scene import sort_options
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.settings import LONGEST_SIDE, Limits


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of TIFF and BigTIFF


def check_signature(path: Path, name: str) -> None:
    """Refuse a file that does not begin as a TIFF does: GDAL never sees another one."""
    with path.open("rb") as file:
        start = file.read(4)
    if start not in _SIGNATURES:
        raise ApiError(
            415,
            "GeoTIFF files",
            f"{name}, which begins with {start!r}" if start else f"{name}, which is empty",
            "Convert it first, for example `gdal_translate -of COG IN OUT.tif`.",
        )


def open_frames(
    paths: Sequence[Path],
    names: Sequence[str],
    options: Mapping[str, Any],
    image_processor: "PrithviImageProcessor",
    config: "PrithviConfig",
    task: str,
    limits: Limits,
) -> tuple[Scene, "PrithviImageProcessor", dict[str, Any]]:
    """Open the frames of a job, within the limits; only headers are read.

    GDAL also looks for side files by name: masks, overviews and metadata (frame_001.tif.msk, .ovr and .aux.xml,
    frame_001.aux and .xml). A client cannot put one there: files get the server's names in the folder of a job.

    Args:
        paths: The files, of this server's own names, in a folder where clients can name none.
        names: What the client calls them.
        options: Those of a job, see `JobOptions`.
        image_processor: The model's.
        config: The model's.
        task: "segmentation" or "regression".
        limits: Of the server.

    Returns:
        The scene, the image processor with what the options say of bands, and the other keywords of `predict_scene`.

    Raises:
        ApiError: If a file is not a GeoTIFF, or larger than the limits.
        ValueError: If the frames are not a scene for this model, or an option cannot be.
    """
    given = dict(options)
    wanted = given.pop("outputs", None)
    _, windows, opening, writing = sort_options(given)
    for path, name in zip(paths, names, strict=True):
        check_signature(path, name)
        raster = GeoTiffRaster(path, allow_missing_blocks=opening.on_read_error == "nodata")
        check_size(raster.height, raster.width, name, limits)
    image_processor = opening.adapt(image_processor)
    image_processor.check_config(config)
    scene = open_scene(list(paths), image_processor, opening, name=names[0])
    check_size(scene.grid.height, scene.grid.width, "a map", limits)

    asks_polygons = writing.polygon_classes is not None or writing.min_area > 0
    if wanted is None:
        wanted = ["quicklook"] if task == "regression" else ["quicklook", "polygons"]
        try:
            check_polygon_options(scene.grid, {})
        except ValueError:  # without a place on Earth there are no polygons; whoever asks for them is told
            wanted = [*wanted[:1], *(["polygons"] if asks_polygons else [])]
    if task == "regression":
        check_value_outputs(wanted, vars(writing))
    elif "polygons" in wanted:
        labels = {int(index): str(label) for index, label in (config.id2label or {}).items()}
        check_polygon_options(scene.grid, labels, writing.polygon_classes, writing.min_area, name=names[0])
    elif asks_polygons:
        raise ApiError(
            422,
            "polygons among the outputs, for the options polygon_classes and min_area",
            f"the outputs {', '.join(wanted) or 'none'}",
            "Add polygons to the outputs, or leave the two options out.",
        )
    return scene, image_processor, {**vars(windows), **vars(writing), **dict.fromkeys(wanted, True)}


def check_size(height: int, width: int, name: str, limits: Limits) -> None:
    """Refuse what has too many pixels, or a side so long that a row of windows would not fit into memory."""
    if height * width <= limits.pixels and max(height, width) <= limits.side:
        return
    raise ApiError(
        413,
        f"at most {limits.max_pixels:g} million pixels and no side longer than {limits.side:,} ({LONGEST_SIDE} times "
        "that of a square)",
        f"{name} of {height:,} x {width:,}",
        "Cut out a smaller scene, for example `gdal_translate -srcwin`, or map it with `prithvi-hf predict`.",
    )


def explain_frame_error(error: Exception, paths: Sequence[Path], names: Sequence[str]) -> str | None:
    """Explain an error of the frames or the options without a path of the server; None for a fault of the program."""
    known = {str(path): name for path, name in zip(paths, names, strict=True)}
    known |= {path.stem: name for path, name in zip(paths, names, strict=True)}
    if paths:
        known |= {f"{paths[0].parent}/": "", str(paths[0].parent): "the folder of the job"}
    return remote_message(error, known)
