# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The pipeline "geospatial-segmentation": satellite scenes in, georeferenced maps out.

This file travels to the Hub. By itself it maps arrays; GeoTIFF files are read and written where prithvi_hf is
installed.
"""

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoModelForSemanticSegmentation, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_prithvi import PrithviConfig
from .coordinates_prithvi import warn_of_unknown
from .image_processing_prithvi import PrithviImageProcessor
from .modeling_prithvi import PrithviForSemanticSegmentation, unwrap_model
from .pixel_values_prithvi import missing_package
from .remote_code_prithvi import RemoteCodeMixin
from .segmentation_map_prithvi import (
    FrameSource,
    PreparedScene,
    SegmentationMap,
    assemble_map,
    in_model_units,
    open_frames,
    predict_scene_logits,
    prepare_scene,
    take_coordinates,
)
from .sliding_window_prithvi import check_window_options


TASK = "geospatial-segmentation"
_DEFAULT_BATCH_SIZE = 8


class GeospatialSegmentationPipeline(RemoteCodeMixin, Pipeline):
    """Map scenes with a Prithvi segmentation model and the preprocessing that was saved with it.

    ```python
    >>> from transformers import pipeline
    >>> import prithvi_hf  # registers the task

    >>> pipe = pipeline("geospatial-segmentation", model="OUT")
    >>> result = pipe("scene.tif")
    >>> result.mask.shape, result.crs
    >>> result.to_geotiff("map.tif")
    >>> pipe("huge_scene.tif", output="map.tif", quicklook="map.png")  # streamed: memory for some rows only
    ```

    A scene is a GeoTIFF (path or bytes), an open rasterio dataset, a DataArray or Dataset of xarray, whose dates are
    its frames, or an array: (C, H, W), or (C, T, H, W) with all frames. A tuple holds the frames of one scene in time
    order; a list holds several scenes, each in any of these forms, and a list inside it counts as a tuple.

    Args:
        model: A `PrithviForSemanticSegmentation`.
        image_processor: Its `PrithviImageProcessor`.
        batch_size: Tiles in one forward pass, 8 by default. Scenes differ in size and are never batched with each
            other, so unlike in other pipelines this says nothing about the list of inputs.
        window: Side of the tiles in pixels, or (height, width); the model's `image_size` by default.
        overlap: Fraction of a tile that the next one covers again, 0 <= overlap < 1; 0.5 by default.
        probabilities: Whether results hold the probability of every class; False by default.
        band_names: Names of an array's or a file's bands, in its order, where they are not the model's bands in order.
        band_map: Which band of a file to use for some bands of the model, `{"NIR_NARROW": "B08"}`.
        band_indices: 0-based positions of the model's bands; see [`PrithviImageProcessor`] for the three of them.
        rescale_factor, rescale_offset: Factor and offset for the numbers of files, in place of the image processor's
            own; scale and offset of files and products are not applied then.
        crs: CRS of scenes that are arrays, in any form that rasterio reads, such as "EPSG:32633".
        transform: Their affine transform, from (column, row) to coordinates of the CRS.
        dates: For a model that takes dates: when each frame was acquired, where neither file names nor times of xarray
            say it; datetimes, dates or ISO texts in the order of the frames.
        location: For a model that takes places: latitude and longitude of the centre in degrees (WGS 84), of scenes
            without CRS.
        kwargs: Arguments of every transformers pipeline: `device`, `num_workers`, `task`.
    """

    _load_processor = False  # type: ignore[assignment]  # transformers infers None for these
    _load_image_processor = True  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __init__(self, model: torch.nn.Module, **kwargs: Any) -> None:
        super().__init__(unwrap_model(model), **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the caller's options into those of the three steps."""
        steps = (
            {
                *("band_names", "band_map", "band_indices", "rescale_factor", "rescale_offset"),
                *("crs", "transform", "dates", "location"),
            },
            {"window", "overlap", "windows_per_batch"},
            {"probabilities"},
        )
        unknown = sorted(set(parameters) - set().union(*steps))
        if unknown:
            raise TypeError(
                f"Unknown option(s) {unknown} of the {TASK} pipeline: it takes batch_size, window, overlap, "
                "probabilities, band_names, band_map, band_indices, rescale_factor, rescale_offset, crs, transform, "
                "dates and location, and with output= the options of predict_scene."
            )
        if not isinstance(parameters.get("probabilities"), bool | None):
            raise ValueError(
                "probabilities: expected True or False for a map in memory, found "
                f"{parameters['probabilities']!r}. Give output= too, the file of the map, to write them to a file."
            )
        forward = {"window": None, "overlap": 0.5, "windows_per_batch": _DEFAULT_BATCH_SIZE} | parameters
        check_window_options(forward["window"], forward["overlap"], forward["windows_per_batch"])
        preprocess, forward, postprocess = (
            {name: parameters[name] for name in step & set(parameters)} for step in steps
        )
        return preprocess, forward, postprocess

    def __call__(  # type: ignore[override]  # of keywords, the base class has num_workers too
        self, inputs: Any, *, batch_size: int | None = None, output: Any = None, **kwargs: Any
    ) -> Any:
        """Map one scene or several.

        Args:
            inputs: A scene, a list of scenes, or a generator or dataset of scenes (which returns an iterator).
            batch_size: Tiles in one forward pass.
            output: A GeoTIFF to write the map to while it is made, so that scenes of any size need memory for some
                rows only; for a list of scenes a list of as many. None makes the map in memory.
            kwargs: `window`, `overlap`, `probabilities`, `band_names`, `band_map`, `band_indices`, `rescale_factor`,
                `rescale_offset`, `crs`, `transform`, `dates`, `location` for this call, and `num_workers`, processes
                that read and prepare the scenes of a list ahead. With `output`: every option of `predict_scene`, such
                as `probabilities=True` or `"p.tif"`.

        Returns:
            `SegmentationMap` with `.mask` (H, W) uint8, `.crs`, `.transform`, `.probabilities`, `.to_geotiff(path)`,
            `.to_xarray()` and `.to_polygons()`; with `output` a `PredictedScene`, which reads `.mask` from the file
            when asked for it;
            a list of them for a list.

        Raises:
            ImportError: If a file is given or to be written and prithvi_hf is not installed.
            ValueError: If an option leaves its range, a file is not a GeoTIFF, or bands, frames or sizes do not fit.
        """
        if isinstance(inputs, list | tuple) and not inputs:
            raise ValueError("Expected at least one scene, found an empty list.")
        cast(PrithviImageProcessor, self.image_processor).check_config(self.model.config)
        batch_size = self._batch_size if batch_size is None else batch_size
        if output is not None:
            return self._stream(inputs, output, batch_size, kwargs)
        if batch_size is not None:
            kwargs["windows_per_batch"] = batch_size
        # The base class would concatenate whole scenes; its own batch size stays 1.
        return super().__call__(inputs, batch_size=1, **kwargs)

    def _stream(self, inputs: Any, output: Any, batch_size: int | None, options: dict[str, Any]) -> Any:
        """Map one scene or several to files, row by row."""
        given = {**self._preprocess_params, **self._postprocess_params, **options}
        if given.pop("num_workers", None):
            raise TypeError("num_workers is an option of maps in memory, not of output=: leave one of the two out.")
        try:
            from prithvi_hf.scenes.predict_scene import predict_scene
        except ImportError as error:
            raise missing_package("Writing maps to files", "leave `output` out and take `.mask`") from error
        defaults = {name: self._forward_params[name] for name in ("window", "overlap") if name in self._forward_params}
        size = batch_size or self._forward_params.get("windows_per_batch", _DEFAULT_BATCH_SIZE)
        options = {"show_progress": False, "batch_size": size, **defaults, **given}
        scenes = inputs if isinstance(inputs, list) else [inputs]
        outputs = list(output) if isinstance(inputs, list) and isinstance(output, list | tuple) else [output]
        if len(outputs) != len(scenes):
            raise ValueError(f"Expected one output for each of {len(scenes)} scenes, found {len(outputs)}.")
        model = cast(PrithviForSemanticSegmentation, self.model)
        image_processor = cast(PrithviImageProcessor, self.image_processor)
        results = []
        for scene, path in zip(scenes, outputs, strict=True):
            if isinstance(scene, np.ndarray | torch.Tensor) and scene.ndim == 4:  # (C, T, H, W)
                scene = tuple(scene[:, frame] for frame in range(scene.shape[1]))
            results.append(predict_scene(model, image_processor, scene, path, **options))
        return results if isinstance(inputs, list) else results[0]

    # The base class goes by dictionaries, which transformers would move to the accelerator as a whole; a scene goes
    # there tile by tile.
    def preprocess(  # type: ignore[override]
        self,
        input_: FrameSource | Sequence[FrameSource],
        crs: Any = None,
        transform: Sequence[float] | None = None,
        dates: Any = None,
        location: Sequence[float] | None = None,
        **options: Any,
    ) -> PreparedScene:
        """Open the frames of a scene and apply the model's preprocessing; the result is in host memory."""
        image_processor = cast(PrithviImageProcessor, self.image_processor).with_options(**options)
        # A factor that is given is for numbers as in the files.
        scale = "ignore" if {"rescale_factor", "rescale_offset"} & set(options) else "auto"
        sources = input_ if isinstance(input_, list | tuple) else (input_,)
        paths = [source for source in sources if isinstance(source, str | os.PathLike)]
        is_nested = any(isinstance(source, list | tuple) for source in sources)
        encoded = cast(PrithviConfig, self.model.config).coords_encoding
        are_arrays = all(isinstance(source, np.ndarray | torch.Tensor) for source in sources)
        needs_dates = bool(encoded) and not are_arrays  # of file names
        if needs_dates or is_nested or any(map(os.path.isdir, paths)) or len(paths) > image_processor.num_frames:
            try:
                from prithvi_hf.scenes.scene import open_scene
            except ImportError as error:
                raise missing_package("Reading one file per band", "give files of all bands") from error
            opened = open_scene(cast(Any, input_), image_processor, scale=scale, dates=dates)
            frames = open_frames(opened.frames)
            # One date in a name does not tell those of a stack.
            dates = opened.dates if len(opened.dates) == image_processor.num_frames else None
        else:
            frames = in_model_units(image_processor, open_frames(input_), scale)
        scene = prepare_scene(image_processor, frames)
        if crs is not None or transform is not None:
            if not all(isinstance(frame, np.ndarray | torch.Tensor) for frame in frames):
                raise ValueError(
                    "Expected crs and transform with arrays only, found them with frames that have their own "
                    "georeference. Leave them out."
                )
            try:
                from prithvi_hf.rasters.objects import read_place
            except ImportError as error:
                raise missing_package("Placing an array", "leave `crs` and `transform` out") from error
            scene.crs, scene.transform = read_place(crs, transform)
        if encoded:
            take_coordinates(scene, image_processor, encoded, dates, location)
            warn_of_unknown(scene.coordinates, "The scene")
        return scene

    def _forward(  # type: ignore[override]
        self,
        input_tensors: PreparedScene,
        window: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        windows_per_batch: int = _DEFAULT_BATCH_SIZE,
    ) -> dict[str, Any]:
        """Slide the model over the scene."""
        logits = predict_scene_logits(
            self.model, input_tensors, window=window, overlap=overlap, batch_size=windows_per_batch
        )
        return {"logits": logits, "scene": input_tensors}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], probabilities: bool = False
    ) -> SegmentationMap:
        """Turn `logits` (num_labels, H, W) and the `scene` they belong to into the map."""
        config = cast(PrithviConfig, self.model.config)
        return assemble_map(config, model_outputs["logits"], model_outputs["scene"], probabilities)


def register_pipeline() -> None:
    """Make `transformers.pipeline("geospatial-segmentation", ...)` known; calling it again changes nothing."""
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=GeospatialSegmentationPipeline,
            pt_model=AutoModelForSemanticSegmentation,
            type="image",
        )
