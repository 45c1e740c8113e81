# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The pipelines "geospatial-segmentation", "geospatial-regression" and "geospatial-classification".

Satellite scenes in, georeferenced maps of classes or of values out, or the classes of whole images. This file travels
to the Hub. By itself it takes arrays; GeoTIFF files are read and written where prithvi_hf is installed.
"""

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoModelForImageClassification, AutoModelForSemanticSegmentation, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_prithvi import NODATA_NAME, PrithviConfig
from .coordinates_prithvi import warn_of_unknown
from .image_processing_prithvi import PrithviImageProcessor
from .inference_dtype_prithvi import INFERENCE_DTYPES, DtypeChoice, convert_model, resolve_dtype
from .input_shift_prithvi import check_input, measure_means
from .modeling_prithvi import PrithviMapModel, unwrap_model
from .pixel_values_prithvi import missing_package
from .regression_map_prithvi import Quantity, RegressionMap
from .regression_prithvi import PrithviForPixelRegression
from .remote_code_prithvi import CUSTOM_PIPELINES, RemoteCodeMixin
from .segmentation_map_prithvi import (
    FrameSource,
    PreparedScene,
    SegmentationMap,
    assemble_map,
    in_model_units,
    open_frames,
    predict_scene_logits,
    prepare_scene,
    sample_windows,
    take_coordinates,
)
from .sliding_window_prithvi import check_window_options, evaluation_mode


TASK, REGRESSION_TASK, CLASSIFICATION_TASK = CUSTOM_PIPELINES
_DEFAULT_BATCH_SIZE = 8


class GeospatialPipeline(RemoteCodeMixin, Pipeline):
    """What the pipelines of all tasks share: which model they take, their options, and how they read a scene."""

    geospatial_task = TASK
    preprocess_options: tuple[str, ...] = (
        *("band_names", "band_map", "band_indices", "rescale_factor", "rescale_offset", "dates", "location"),
    )
    forward_options: tuple[str, ...] = ()
    postprocess_options: tuple[str, ...] = ()

    _load_processor = False  # type: ignore[assignment]  # transformers infers None for these
    _load_image_processor = True  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __init__(self, model: torch.nn.Module, **kwargs: Any) -> None:
        super().__init__(unwrap_model(model, (self.geospatial_task.removeprefix("geospatial-"),)), **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the caller's options into those of the three steps."""
        steps = (self.preprocess_options, self.forward_options, self.postprocess_options)
        known = [name for step in steps for name in step]
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            names = ", ".join(name for name in known if name != "windows_per_batch")
            raise TypeError(
                f"Unknown option(s) {unknown} of the {self.geospatial_task} pipeline: it takes batch_size, {names}"
                f"{', and with output= the options of predict_scene' if 'window' in known else ''}."
            )
        preprocess, forward, postprocess = (
            {name: parameters[name] for name in step if name in parameters} for step in steps
        )
        return preprocess, forward, postprocess

    def check_inputs(self, inputs: Any) -> None:
        """Refuse an empty list, and an image processor that does not fit the model."""
        if isinstance(inputs, list | tuple) and not inputs:
            raise ValueError("Expected at least one scene, found an empty list.")
        cast(PrithviImageProcessor, self.image_processor).check_config(self.model.config)

    def read_scene(
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
        if image_processor.training_statistics and not scene.nodata_mask.all():
            values = image_processor.restore_frame_order(scene.pixel_values[0]).numpy()
            name = str(getattr(frames[0], "name", "the scene"))
            scene.input_check = check_input(measure_means(values, scene.nodata_mask), image_processor, name)
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


class GeospatialMapPipeline(GeospatialPipeline):
    """What the pipelines of maps share: the model slides over a scene, in memory or from file to file."""

    preprocess_options = (*GeospatialPipeline.preprocess_options, "crs", "transform")
    forward_options = ("window", "overlap", "windows_per_batch", "inference_dtype")
    dtype_choice: DtypeChoice | None = None
    """What `inference_dtype` came to for the scene before; that of a map in a file is in its report."""

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the caller's options into those of the three steps, and check those of tiles."""
        steps = super()._sanitize_parameters(**parameters)
        forward = {"window": None, "overlap": 0.5, "windows_per_batch": _DEFAULT_BATCH_SIZE} | steps[1]
        check_window_options(forward["window"], forward["overlap"], forward["windows_per_batch"])
        if forward.get("inference_dtype") not in (None, *INFERENCE_DTYPES):
            raise ValueError(
                f"inference_dtype: expected one of {', '.join(INFERENCE_DTYPES)}, or None for that of the weights, "
                f"found {forward['inference_dtype']!r}."
            )
        return steps

    def __call__(  # type: ignore[override]  # of keywords, the base class has num_workers too
        self, inputs: Any, *, batch_size: int | None = None, output: Any = None, **kwargs: Any
    ) -> Any:
        """Map one scene or several.

        Args:
            inputs: A scene, a list of scenes, or a generator or dataset of scenes (which returns an iterator).
            batch_size: Tiles in one forward pass.
            output: A GeoTIFF to write the map to while it is made, so that scenes of any size need memory for some
                rows only; for a list of scenes a list of as many. None makes the map in memory.
            kwargs: The options of the pipeline for this call, and `num_workers`, processes that read and prepare the
                scenes of a list ahead. With `output`: every option of `predict_scene`, such as `quicklook=True` or
                `"map.png"`.

        Returns:
            `SegmentationMap` with `.mask` (H, W) uint8, `.crs`, `.transform`, `.probabilities`, `.to_geotiff(path)`,
            `.to_xarray()` and `.to_polygons()`; of a regression `RegressionMap` with `.values` (H, W) float32 and
            `.unit`. With `output` a `PredictedScene` or `PredictedValues`, which reads them from the file when asked
            for them; a list for a list.

        Raises:
            ImportError: If a file is given or to be written and prithvi_hf is not installed.
            ValueError: If an option leaves its range, a file is not a GeoTIFF, or bands, frames or sizes do not fit.
        """
        self.check_inputs(inputs)
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
            raise missing_package("Writing maps to files", "leave `output` out and take the map in memory") from error
        defaults = {name: self._forward_params[name] for name in ("window", "overlap") if name in self._forward_params}
        size = batch_size or self._forward_params.get("windows_per_batch", _DEFAULT_BATCH_SIZE)
        dtype = given.pop("inference_dtype", self._forward_params.get("inference_dtype"))
        options = {"show_progress": False, "batch_size": size, "dtype": dtype, **defaults, **given}
        scenes = inputs if isinstance(inputs, list) else [inputs]
        outputs = list(output) if isinstance(inputs, list) and isinstance(output, list | tuple) else [output]
        if len(outputs) != len(scenes):
            raise ValueError(f"Expected one output for each of {len(scenes)} scenes, found {len(outputs)}.")
        model = cast(PrithviMapModel, self.model)
        image_processor = cast(PrithviImageProcessor, self.image_processor)
        results = []
        for scene, path in zip(scenes, outputs, strict=True):
            if isinstance(scene, np.ndarray | torch.Tensor) and scene.ndim == 4:  # (C, T, H, W)
                scene = tuple(scene[:, frame] for frame in range(scene.shape[1]))
            results.append(predict_scene(model, image_processor, scene, path, **options))
        return results if isinstance(inputs, list) else results[0]

    def preprocess(  # type: ignore[override]  # no dictionary: transformers would move all of it to the accelerator
        self, input_: FrameSource | Sequence[FrameSource], **options: Any
    ) -> PreparedScene:
        """Open the frames of a scene and apply the model's preprocessing; the result is in host memory."""
        return self.read_scene(input_, **options)

    def _forward(  # type: ignore[override]
        self,
        input_tensors: PreparedScene,
        window: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        windows_per_batch: int = _DEFAULT_BATCH_SIZE,
        inference_dtype: str | None = None,
    ) -> dict[str, Any]:
        """Slide the model over the scene."""
        model: Any = self.model
        if inference_dtype is not None:
            samples = sample_windows(model.config, input_tensors, window, overlap)
            self.dtype_choice = resolve_dtype(model, inference_dtype, *samples)
            model = convert_model(model, self.dtype_choice.chosen)
        logits = predict_scene_logits(
            model, input_tensors, window=window, overlap=overlap, batch_size=windows_per_batch
        )
        return {"logits": logits, "scene": input_tensors}


class GeospatialSegmentationPipeline(GeospatialMapPipeline):
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
        inference_dtype: "float32", "bfloat16" or "float16" to predict in, or "auto" for bfloat16 where the device is
            made for it and the classes of some tiles stay the same, see
            [`~models.prithvi.inference_dtype_prithvi.resolve_dtype`]; `dtype_choice` tells what was chosen. None, the
            default, is the dtype of the weights, which `dtype` of `transformers.pipeline` chooses: there "auto" means
            as they were saved.
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

    postprocess_options = ("probabilities",)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the caller's options into those of the three steps, and check them."""
        if not isinstance(parameters.get("probabilities"), bool | None):
            raise ValueError(
                "probabilities: expected True or False for a map in memory, found "
                f"{parameters['probabilities']!r}. Give output= too, the file of the map, to write them to a file."
            )
        return super()._sanitize_parameters(**parameters)

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], probabilities: bool = False
    ) -> SegmentationMap:
        """Turn `logits` (num_labels, H, W) and the `scene` they belong to into the map."""
        config = cast(PrithviConfig, self.model.config)
        return assemble_map(config, model_outputs["logits"], model_outputs["scene"], probabilities)


class GeospatialRegressionPipeline(GeospatialMapPipeline):
    """Map scenes with a Prithvi model of values of pixels, and the preprocessing that was saved with it.

    ```python
    >>> from transformers import pipeline
    >>> import prithvi_hf  # registers the task

    >>> pipe = pipeline("geospatial-regression", model="OUT")
    >>> result = pipe("scene.tif")
    >>> result.values.shape, result.unit
    >>> result.to_geotiff("biomass.tif")
    >>> pipe("huge_scene.tif", output="biomass.tif", quicklook=True)  # streamed: memory for some rows only
    ```

    Scenes and options are those of [`GeospatialSegmentationPipeline`], but for `probabilities`. Where tiles overlap, a
    value is their mean.

    Args:
        model: A `PrithviForPixelRegression`.
        kwargs: As in [`GeospatialSegmentationPipeline`].
    """

    geospatial_task = REGRESSION_TASK

    def postprocess(self, model_outputs: dict[str, Any]) -> RegressionMap:  # type: ignore[override]
        """Turn `logits` (1, H, W), the values, and the `scene` they belong to into the map."""
        scene: PreparedScene = model_outputs["scene"]
        values = model_outputs["logits"][0].float().cpu().numpy()
        values[scene.nodata_mask] = np.nan
        name, unit = Quantity.of(cast(PrithviConfig, self.model.config))
        picture = scene.rgb, scene.rgb_title
        return RegressionMap(values, name, unit, scene.crs, scene.transform, *picture, scene.input_check)


class GeospatialClassificationPipeline(GeospatialPipeline):
    """Classify images with a Prithvi model of whole images, and the preprocessing that was saved with it.

    ```python
    >>> from transformers import pipeline
    >>> import prithvi_hf  # registers the task

    >>> pipe = pipeline("geospatial-classification", model="OUT")
    >>> pipe("chip.tif")
    [{'label': 'forest', 'score': 0.93}, {'label': 'pasture', 'score': 0.05}]
    ```

    Images are given in the same forms as the scenes of [`GeospatialSegmentationPipeline`]. The model takes each as a
    whole, so it should be of about the size of the images in training: a large scene is not cut into tiles.

    Args:
        model: A `PrithviForImageClassification`.
        image_processor: Its `PrithviImageProcessor`.
        batch_size: Images in one forward pass, 1 by default; those of a batch must be of one size.
        top_k: Most classes in a result, 5 by default; None for all.
        threshold: Of a model of several classes per image, the least probability in a result; 0.5 by default.
        band_names, band_map, band_indices, rescale_factor, rescale_offset, dates, location: As in
            [`GeospatialSegmentationPipeline`].
        kwargs: Arguments of every transformers pipeline: `device`, `num_workers`, `task`.

    Raises:
        ValueError: `top_k` or `threshold` is out of its range, an image cannot be read, or scores are not finite.
    """

    geospatial_task = CLASSIFICATION_TASK
    postprocess_options = ("top_k", "threshold")

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the caller's options into those of the three steps, and check them."""
        top_k, threshold = parameters.get("top_k"), parameters.get("threshold", 0.5)
        if (top_k is not None and top_k < 1) or not 0 <= threshold <= 1:
            raise ValueError(
                f"Expected top_k of at least 1, or None for all, and a threshold from 0 to 1, found {top_k} and "
                f"{threshold}."
            )
        return super()._sanitize_parameters(**parameters)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Classify one image or several.

        Args:
            inputs: An image, a list of images, or a generator or dataset of images (which returns an iterator).
            kwargs: The options of the pipeline for this call.

        Returns:
            A list of dictionaries with "label" and "score", the largest score first; a list of such lists for a list.
            Scores are probabilities, all of which add up to 1 where an image is of one class, or values in their unit
            for a regression. An image without any data has the one label "no data".

        Raises:
            ImportError: If a file is given and prithvi_hf is not installed.
            ValueError: If an option leaves its range, a file is not a GeoTIFF, or bands, frames or sizes do not fit.
        """
        self.check_inputs(inputs)
        return super().__call__(inputs, **kwargs)

    def preprocess(  # type: ignore[override]
        self, input_: FrameSource | Sequence[FrameSource], **options: Any
    ) -> dict[str, torch.Tensor]:
        """Open the frames of an image and apply the model's preprocessing."""
        scene = self.read_scene(input_, **options)
        has_data = torch.tensor([not scene.nodata_mask.all()])
        return {"pixel_values": scene.pixel_values, **scene.coordinates, "has_data": has_data}

    def _forward(self, input_tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Run the model on one image or a batch."""
        has_data = input_tensors.pop("has_data")
        with evaluation_mode(self.model):
            return {"logits": self.model(**input_tensors).logits, "has_data": has_data}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, torch.Tensor], top_k: int | None = 5, threshold: float = 0.5
    ) -> list[dict[str, Any]]:
        """Turn the logits (1, num_labels) of an image into labels and scores."""
        if not model_outputs["has_data"].all():
            return [{"label": NODATA_NAME, "score": 1.0}]
        config = cast(PrithviConfig, self.model.config)
        scores, least = model_outputs["logits"][0].float(), -np.inf
        if config.problem_type == "multi_label_classification":
            scores, least = (scores / config.temperature).sigmoid(), threshold
        elif config.problem_type != "regression":
            scores = (scores / config.temperature).softmax(dim=0)
        if not scores.isfinite().all():
            raise ValueError(
                "The model gives scores that are not finite: check its weights, and the dtype it runs in (float32 or "
                "bfloat16 instead of float16)."
            )
        labels = cast(dict[int, str], config.id2label)
        found = [{"label": labels[index], "score": score} for index, score in enumerate(scores.tolist())]
        return sorted((one for one in found if one["score"] >= least), key=lambda one: -one["score"])[:top_k]


def register_pipeline() -> None:
    """Make the tasks known to `transformers.pipeline`; calling it again changes nothing."""
    for pipeline_class, model_class in (
        (GeospatialSegmentationPipeline, AutoModelForSemanticSegmentation),
        (GeospatialRegressionPipeline, PrithviForPixelRegression),  # transformers has no Auto class for it
        (GeospatialClassificationPipeline, AutoModelForImageClassification),
    ):
        task = pipeline_class.geospatial_task
        if task not in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.register_pipeline(
                task, pipeline_class=pipeline_class, pt_model=model_class, type="image"
            )
