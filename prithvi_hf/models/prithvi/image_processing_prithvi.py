# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of the Prithvi models: bands, nodata, scale, statistics, frames, labels and post-processing.

Arrays and rasters come in as they lie in the file; `pixel_values` (batch_size, num_channels, num_frames, height,
width) and `labels` (batch_size, height, width) come out. Everything that the model was trained with is an attribute,
saved in `preprocessor_config.json`, so that inference applies what training applied, once. Neither Pillow nor
torchvision is needed.
"""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.processing_utils import ImagesKwargs, Unpack

from .labels_prithvi import (
    labels_of,
    mask_name,
    read_labels,
    read_mask,
)
from .pixel_values_prithvi import (
    Frame,
    ImageValues,
    ReadImage,
    UnitsWarning,
    find_nodata,
    is_raster,
    name_of,
    normalize_file_values,
    read_frames,
    replacement_changes_nothing,
    scale_and_normalize,
    units_problem,
    used_bands,
)
from .processor_options_prithvi import (
    band_names_an_image,
    check_consistency,
    clean_option,
    one_an_image,
    reject,
    to_json_number,
)
from .remote_code_prithvi import RemoteCodeMixin, without_remote_code


_SHARED_OPTIONS = {"do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
_CALL_OPTIONS = {"band_names", "file_nodata", "return_nodata_mask", "names", "return_tensors"}
_MAY_BE_NONE = {"band_indices", "nodata_value", "ignore_values", "num_labels"} | _CALL_OPTIONS
# Resizing, cropping, padding and colour conversion of photographs; asked for, they are refused rather than left
# undone.
_OPTIONS_OF_OTHERS = set(ImagesKwargs.__annotations__) - _SHARED_OPTIONS - _CALL_OPTIONS
_SERVICE_KEYS = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")
_UNITS_OPTIONS = ("bands", "do_rescale", "rescale_factor", "rescale_offset", "image_mean", "image_std")


class PrithviImageProcessorKwargs(ImagesKwargs, total=False):
    """Options of `PrithviImageProcessor`, which documents them, and of a single call.

    Attributes:
        bands (`list[str]`): names of the bands that the model takes.
        band_indices (`list[int]`, *optional*): positions of `bands` in files without band descriptions.
        num_frames (`int`): number of dates of an image.
        frame_order (`str`): `"time_major"` or `"original_crop"`.
        rescale_offset (`float`): added after the multiplication with `rescale_factor`.
        nodata_value (`float` or `list[float]`, *optional*): values that mean "no data".
        nodata_replacement (`float`): what stands for missing values.
        nodata_rule (`str`): `"all"` or `"any"`.
        ignore_values (`list[int]`, *optional*): mask values that are no classes.
        do_reduce_labels (`bool`): whether classes are counted from 1 in the masks.
        num_labels (`int`, *optional*): number of classes.
        mask_nodata_labels (`bool`): whether nodata pixels are ignored in the labels.
        band_names (`list`, *optional*): of a call: band descriptions in place of the file's own.
        file_nodata (`float` or `list`, *optional*): of a call: nodata tag of images that carry none.
        return_nodata_mask (`bool`): of a call: whether to return `nodata_mask`.
        names (`str` or `list[str]`, *optional*): of a call: what messages call the images.
    """

    bands: list[str]
    band_indices: list[int] | None
    num_frames: int
    frame_order: str
    rescale_offset: float
    nodata_value: float | list[float] | None
    nodata_replacement: float
    nodata_rule: str
    ignore_values: list[int] | None
    do_reduce_labels: bool
    num_labels: int | None
    mask_nodata_labels: bool
    band_names: list | tuple | None
    file_nodata: float | list | None
    return_nodata_mask: bool | None
    names: str | list | tuple | None


class PrithviImageProcessor(RemoteCodeMixin, BaseImageProcessor):
    r"""Prepares multispectral images and masks for the Prithvi models.

    One image is an array or tensor (num_channels, height, width) or (num_channels, num_frames, height, width),
    or a raster (an object with `read`, `read_nodata_mask`, `shape`, `count`, `descriptions`, `nodata` and `name`, such
    as `prithvi_hf.data.geotiff.GeoTiffRaster`), or a tuple or inner list of frames, each an array (num_channels,
    height, width) or a raster. A list, or an array of five dimensions, is a batch. Of rasters only the needed bands
    are read.

    Bands are found by name in the band descriptions, in any order and by the names or codes of Sentinel-2, HLS and
    Landsat 8/9. A file without descriptions is taken in order when it has `len(bands)` bands, and by `band_indices`
    otherwise. A single file or array without descriptions that has `len(bands) * num_frames` bands is a stack of
    dates: all bands of the first date, then all bands of the second.

    No data: a pixel is nodata when every used band equals the file's tag or `nodata_value`, or is NaN, or when the
    file's own mask says so (rule `"any"`: when one band does). With several frames a pixel is nodata when it is so in
    every frame (rule `"any"`: in one frame). Beside this rule for pixels, each single value that is NaN, infinite or
    equal to the tag or `nodata_value`, and every band of a nodata pixel, is replaced by `nodata_replacement` before
    scaling: a fill value of -9999 in one band alone would otherwise reach the model tens of standard deviations away.

    Values that are plainly in other units than the statistics (digital numbers against reflectance) raise a
    `UnitsWarning` with the measured figures, once for each set of options.

    Frame order: `pixel_values[:, c, t]` is band c of date t. The crop recipe of hls-foundation-os mixed them: it
    normalised the 18 bands of its files, all bands of the first date first, and then reshaped them to (bands, dates)
    as if all dates of the first band came first. What its model calls blue at three dates is blue, green and red of
    the first date. The published crop checkpoint learned from such input and needs it for ever:
    `frame_order="original_crop"` makes it, from any form of image, and conversion of that checkpoint sets it. Nothing
    else should. Statistics, nodata and units go by the true bands in either order.

    Args:
        bands (`list[str]`): names of the bands that the model takes, in its order.
        band_indices (`list[int]`, *optional*): 0-based positions of `bands` in files without descriptions that have
            another number of bands.
        num_frames (`int`): number of dates of an image.
        frame_order (`str`): `"time_major"`, or `"original_crop"` for the published crop checkpoint, see above.
        do_rescale (`bool`): whether to compute `value * rescale_factor + rescale_offset`.
        rescale_factor (`float`): 0.0001 turns the digital numbers of most products into reflectance.
        rescale_offset (`float`): -0.1, with a factor of 0.0001, for Sentinel-2 products of baseline 04.00 and later.
        do_normalize (`bool`): whether to compute `(value - image_mean) / image_std` after scaling.
        image_mean (`list[float]`): mean of each of `bands` in the units after scaling; one number is taken for all
            bands. Mean and standard deviation default to those of the V1 pretraining, in digital numbers (reflectance
            times 10,000).
        image_std (`list[float]`): standard deviation of each of `bands`, greater than 0.
        nodata_value (`float` or `list[float]`, *optional*): values that mean "no data", beside the file's tag and NaN.
        nodata_replacement (`float`): what stands for missing values, in the units of the file.
        nodata_rule (`str`): `"all"` or `"any"`, see above.
        ignore_values (`list[int]`, *optional*): mask values that become -100, such as -1 or 255. NaN and -100 always
            do.
        do_reduce_labels (`bool`): whether, after that, 0 becomes -100 and 1..n become 0..n-1.
        num_labels (`int`, *optional*): number of classes; any other value in a mask is then an error.
        mask_nodata_labels (`bool`): whether labels of nodata pixels become -100. The published metrics count them.

    Example:
        >>> import numpy as np
        >>> from prithvi_hf import PrithviImageProcessor
        >>> processor = PrithviImageProcessor(nodata_value=-9999)
        >>> chip = np.full((6, 224, 224), 1500, dtype=np.int16)
        >>> processor(chip, return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 6, 1, 224, 224])
    """

    valid_kwargs = PrithviImageProcessorKwargs
    model_input_names = ["pixel_values"]

    bands = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    band_indices = None
    num_frames = 1
    frame_order = "time_major"
    do_rescale = True
    rescale_factor = 1.0
    rescale_offset = 0.0
    do_normalize = True
    image_mean = [775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0]
    image_std = [1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0]
    nodata_value = None
    nodata_replacement = 0.0
    nodata_rule = "all"
    ignore_values = None
    do_reduce_labels = False
    num_labels = None
    mask_nodata_labels = False

    def __init__(self, **kwargs: Unpack[PrithviImageProcessorKwargs]) -> None:
        service = {key: kwargs.pop(key, None) for key in _SERVICE_KEYS}
        super().__init__()
        if service["auto_map"] is not None:
            self.auto_map = service["auto_map"]
        self._set_attributes(**kwargs)

    # ------------------------------------------------------------------ options

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the options that are attributes and are saved in `preprocessor_config.json`."""
        return [name for name in cls.valid_kwargs.__annotations__ if name not in _OPTIONS_OF_OTHERS | _CALL_OPTIONS]

    def _set_attributes(self, **kwargs: Any) -> None:
        only_calls = sorted(_CALL_OPTIONS & set(kwargs))
        if only_calls:
            raise TypeError(f"{', '.join(only_calls)}: expected in a call, found in the constructor of the processor")
        given = self._clean_options(kwargs)
        options = {name: deepcopy(given.get(name, getattr(type(self), name))) for name in self.option_names()}
        options = self._standardize_kwargs(**options)
        check_consistency(options)
        for name, value in options.items():
            setattr(self, name, value)
        self._valid_kwargs_names = list(self.valid_kwargs.__annotations__)
        self._units_warned: dict[str, object] = {}
        self._option_names = tuple(self.option_names())
        self._last_options: dict[str, Any] | None = None

    def _clean_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options in their saved form. None stays where it is a choice, and elsewhere leaves the option as it is."""
        unknown = sorted(set(options) - set(self.valid_kwargs.__annotations__))
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unknown option {', '.join(unknown)}; expected some of "
                f"{', '.join(self.option_names())}"
            )
        others = sorted(name for name in _OPTIONS_OF_OTHERS & set(options) if options[name] not in (None, False))
        if others:
            raise ValueError(
                f"{type(self).__name__}: expected no resizing, cropping, padding or conversion, found "
                f"{', '.join(others)}. Remedy: leave the option out, and crop or pad before the processor."
            )
        return {
            name: clean_option(name, value)
            for name, value in options.items()
            if name not in _OPTIONS_OF_OTHERS and (value is not None or name in _MAY_BE_NONE)
        }

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """One number for all bands becomes a list; lists stay lists, so that saving and loading gives the same."""
        for name in ("image_mean", "image_std"):
            if isinstance(kwargs[name], float):
                kwargs[name] = [kwargs[name]] * len(kwargs["bands"])
        return kwargs

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        check_consistency(kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The processor as a dictionary that JSON holds without loss: a nodata value of NaN is written as `"nan"`.

        Returns:
            Every option, `image_processor_type` and, for a processor with code on the Hub, `auto_map`.
        """
        output = {name: deepcopy(getattr(self, name)) for name in self.option_names()}
        output["nodata_value"] = to_json_number(output["nodata_value"])
        output["image_processor_type"] = type(self).__name__
        if getattr(self, "auto_map", None) is not None:
            output["auto_map"] = deepcopy(self.auto_map)
        return without_remote_code(type(self), output)

    # ------------------------------------------------------------------ bands

    def find_bands(self, descriptions: Sequence[str | None] | None, count: int, name: str = "") -> list[int]:
        """Finds the processor's `bands` in a file.

        Args:
            descriptions: the file's band descriptions, one a band, or None where it has none.
            count: number of bands in the file.
            name: the file, for messages.

        Returns:
            0-based positions to read, in the order of `bands`; all positions for a file that stacks `num_frames`
            dates.

        Raises:
            ValueError: bands are missing or ambiguous; the message lists expected and found.
        """
        options = {"bands": self.bands, "band_indices": self.band_indices, "names": name}
        return used_bands(descriptions, count, options, self.num_frames)[0]

    # ------------------------------------------------------------------ images and masks to tensors

    def preprocess(
        self, images: Any, segmentation_maps: Any = None, **kwargs: Unpack[PrithviImageProcessorKwargs]
    ) -> BatchFeature:
        """Prepares one image or a batch, with or without masks.

        Args:
            images: one image, or a list (or 5-D array) of images; see the class for what an image is.
            segmentation_maps: one mask an image, or None: arrays (height, width) or (1, height, width), or rasters of
                one band. Values are class numbers; floats must be whole; NaN and -100 are ignored.
            **kwargs: any option of the class, for this call only, and

                - `band_names`: band descriptions of arrays, or in place of the files' own: one list for all images, or
                  one list an image;
                - `file_nodata`: nodata tag of images that carry none, such as arrays: one number for all, or a list
                  with one entry an image;
                - `return_nodata_mask`: whether to return `nodata_mask`;
                - `names`: what messages call the images: a text for a single image, else a list;
                - `return_tensors`: `"pt"` or `"np"` stack the batch; None gives lists with one tensor an image, which
                  may differ in size.

        Returns:
            `pixel_values` float32 (batch_size, num_channels, num_frames, height, width); with masks `labels` int64
            (batch_size, height, width), ignored pixels -100; if asked `nodata_mask` bool (batch_size, height, width),
            True where there is no data.

        Raises:
            ValueError: an image or a mask does not fit the options or the other images; the message says what was
                expected, what was found and what to do.
            TypeError: an unknown option, or an object that is no image.
        """
        of_a_call = {name: value for name, value in kwargs.items() if name in _CALL_OPTIONS}
        if len(of_a_call) < len(kwargs):
            return super().preprocess(images, segmentation_maps, **self._clean_options(kwargs))
        # The usual call sets no option of the class: checking them all again would take longer than the work.
        options = {**self.checked_options(), **dict.fromkeys(_CALL_OPTIONS), **self._clean_options(of_a_call)}
        return self._preprocess_image_like_inputs(images, segmentation_maps, **options)

    def checked_options(self) -> dict[str, Any]:
        """The processor's own options by name; checked when they are not those of the last time."""
        options = {name: getattr(self, name) for name in self._option_names}
        if options != self._last_options:
            checked = self._standardize_kwargs(**options)
            self._validate_preprocess_kwargs(**checked)
            self._last_options = deepcopy(checked)  # the lists of `options` may be changed in place
            return checked
        return options

    def _preprocess_image_like_inputs(
        self, images: Any, segmentation_maps: Any = None, **options: Any
    ) -> BatchFeature:
        batch = _as_batch(images)
        maps = [None] * len(batch) if segmentation_maps is None else _as_batch_of_maps(segmentation_maps, len(batch))
        names = one_an_image("names", options["names"], len(batch), str)
        tags = one_an_image("file_nodata", options["file_nodata"], len(batch), float)
        band_names = band_names_an_image(options["band_names"], len(batch))
        data: dict[str, list[torch.Tensor]] = {}
        for i, (image, segmentation_map) in enumerate(zip(batch, maps, strict=True)):
            own = {"names": names[i] or name_of(image, i), "file_nodata": tags[i], "band_names": band_names[i]}
            for key, tensor in self._preprocess_one(image, segmentation_map, {**options, **own}).items():
                data.setdefault(key, []).append(tensor)
        return BatchFeature(data={key: _stack(key, rows, options["return_tensors"]) for key, rows in data.items()})

    def _preprocess_one(
        self, image: Any, segmentation_map: Any, options: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        frames = read_frames(image, options)
        missing, nodata_mask = find_nodata(frames, options)
        self._check_units(frames, missing, options)
        result = {"pixel_values": torch.from_numpy(scale_and_normalize(frames, missing, options))}
        if segmentation_map is not None:
            result["labels"] = torch.from_numpy(read_labels(segmentation_map, nodata_mask, options))
        if options["return_nodata_mask"]:
            result["nodata_mask"] = torch.from_numpy(nodata_mask)
        return result

    def read_image(
        self, image: Any, segmentation_map: Any = None, check_units: bool = True, labels: np.ndarray | None = None
    ) -> ReadImage:
        """Reads one image with its mask, and leaves the scaling until it is known what for: see [`ReadImage`].

        Args:
            image: one image, see the class.
            segmentation_map: its mask, as in [`~PrithviImageProcessor.preprocess`].
            check_units: whether values plainly in other units than the statistics raise a `UnitsWarning`. Without it
                nodata pixels are only looked for where that changes pixel values or labels.
            labels: contiguous array of the mask's size to write the labels into, int64 or, with `num_labels`, int16.

        Returns:
            [`ReadImage`]: `pixel_values()` and `labels` are what a call of the processor gives.

        Raises:
            ValueError: the image or the mask does not fit the options.
        """
        return self.examine(self.open_image(image, segmentation_map), check_units, labels)

    def open_image(self, image: Any, segmentation_map: Any = None) -> ImageValues:
        """Reads one image with its mask as they are in their files; of rasters in memory nothing is copied.

        Args:
            image: as in [`~PrithviImageProcessor.read_image`].
            segmentation_map: as there.

        Raises:
            ValueError: as there.
        """
        of_a_call = {"names": name_of(image, 0), "file_nodata": None, "band_names": None}
        options = {**self.checked_options(), **of_a_call}
        frames = read_frames(image, options)
        if segmentation_map is None:
            return ImageValues(frames, None, "", None, options)
        name = mask_name(segmentation_map, options)
        limits = getattr(segmentation_map, "limits", None)
        return ImageValues(frames, read_mask(segmentation_map, name), name, limits, options)

    def examine(self, image: ImageValues, check_units: bool = True, labels: np.ndarray | None = None) -> ReadImage:
        """Finds what is missing in an image and makes the labels: the second half of `read_image`.

        Args:
            image: an image, or a part of one.
            check_units: as in [`~PrithviImageProcessor.read_image`].
            labels: as there.

        Raises:
            ValueError: as there.
        """
        frames, options = image.frames, image.options
        missing, nodata_mask = [None] * len(frames), None
        if check_units or options["mask_nodata_labels"] or not self._nothing_missing(image):
            missing, nodata_mask = find_nodata(frames, options)
        if check_units:
            self._check_units(frames, missing, options)
        if image.mask is not None:
            size, options = frames[0].values.shape[-2:], {**options, "mask_limits": image.mask_limits}
            labels = labels_of(image.mask, image.mask_name, size, nodata_mask, options, labels)
        return ReadImage(frames, missing, nodata_mask, None if image.mask is None else labels, image.options)

    def _nothing_missing(self, image: ImageValues) -> bool:
        return image.nothing_missing or replacement_changes_nothing(image.frames, image.options)

    def _check_units(self, frames: list[Frame], missing: list[np.ndarray | None], options: Mapping[str, Any]) -> None:
        """Warns once for each set of options."""
        key = repr([options[name] for name in _UNITS_OPTIONS])
        worker = torch.utils.data.get_worker_info()
        # Every worker process of a DataLoader holds its own copy of the processor: one of them speaks for all.
        if not options["do_normalize"] or key in self._units_warned or (worker is not None and worker.id != 0):
            return
        problem = units_problem(frames, missing, options, options["names"])
        own = object()
        # In one step: several threads may read chips with one processor and find the same problem at once.
        if problem is not None and self._units_warned.setdefault(key, own) is own:
            warnings.warn(problem, UnitsWarning, stacklevel=2)

    def normalize_file_values(self, file_values: torch.Tensor) -> torch.Tensor:
        """Scales and normalises values that are as in the file, on the device on which they are.

        Args:
            file_values: (batch_size, num_channels, num_frames, height, width) of any type, missing values replaced, as
                `SegmentationTransform(normalize=False)` gives them.

        Returns:
            `pixel_values` float32 of the same shape, the figures that a call of the processor gives.
        """
        return normalize_file_values(file_values, self.checked_options())

    # ------------------------------------------------------------------ frames

    def read_frames(self, image: Any, name: str | None = None) -> tuple[list[Frame], list[Any], np.ndarray]:
        """Reads one image up to the point where values are replaced, scaled and normalised.

        Args:
            image: one image, see the class.
            name: what messages call it.

        Returns:
            The frames with the values of `bands` as in the file; for each frame the values that are missing, bool
            (num_channels, height, width), or None where none is; and the nodata pixels, bool (height, width).

        Raises:
            ValueError: the image does not fit the options.
        """
        options = {option: getattr(self, option) for option in self.option_names()}
        of_a_call = {"names": name or name_of(image, 0), "file_nodata": None, "band_names": None}
        frames = read_frames(image, {**options, **of_a_call})
        return frames, *find_nodata(frames, options)

    def check_units(self, frames: list[Frame], missing: list[Any], name: str) -> None:
        """Warns, once for each set of options, where values are plainly in other units than the statistics.

        Args:
            frames: the frames of one image, as `read_frames` returns them.
            missing: for each frame the values that are missing, likewise.
            name: what the message calls the image.
        """
        self._check_units(frames, missing, {**self.checked_options(), "names": name})

    def restore_frame_order(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixel values by band and date, whatever `frame_order` the model takes them in; for pictures and figures.

        Args:
            pixel_values: of one image as this processor returns them, (num_channels, num_frames, height, width).

        Returns:
            The same values, band c of date t at [c, t]; a view where the memory allows.
        """
        if self.frame_order == "time_major":
            return pixel_values
        channels, frames = pixel_values.shape[:2]
        return pixel_values.reshape(frames, channels, *pixel_values.shape[2:]).transpose(0, 1)

    # ------------------------------------------------------------------ logits to maps

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Turns logits into maps of class numbers.

        Args:
            outputs: model output with `logits` (batch_size, num_labels, height, width).
            target_sizes: (height, width) of each map, or None for the size of the logits. Logits of another size are
                resized bilinearly first.

        Returns:
            One int64 tensor (height, width) an image, values 0..num_labels-1.

        Raises:
            ValueError: `target_sizes` does not give one size for each image.
        """
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        sizes = [tuple(int(side) for side in size) for size in target_sizes]
        if len(sizes) != len(logits) or any(len(size) != 2 for size in sizes):
            raise ValueError(
                f"target_sizes: expected one (height, width) for each of the {len(logits)} images of the logits, "
                f"found {len(sizes)}: {sizes}. Remedy: pass a list with one (height, width) an image."
            )
        return [_resize_logits(one, size).argmax(dim=0) for one, size in zip(logits, sizes, strict=True)]


def _as_batch(images: Any) -> list[Any]:
    """The images of a batch; anything but a list or a 5-D array is one image."""
    is_batch = isinstance(images, list) or (isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 5)
    batch = list(images) if is_batch else [images]
    if not batch:
        raise ValueError("images: expected at least one image, found an empty batch")
    return batch


def _as_batch_of_maps(maps: Any, batch_size: int) -> list[Any]:
    is_array = isinstance(maps, np.ndarray | torch.Tensor)
    is_single = is_raster(maps) or (is_array and (maps.ndim == 2 or (batch_size == 1 and maps.ndim == 3)))
    batch = [maps] if is_single else list(maps)
    if len(batch) != batch_size:
        raise ValueError(
            f"segmentation_maps: expected one mask for each of {batch_size} images, found {len(batch)}. Remedy: pass "
            "a list with one mask an image."
        )
    return batch


def _stack(key: str, rows: list[torch.Tensor], return_tensors: Any) -> Any:
    """A batch in the form asked for."""
    if return_tensors is None:
        return rows
    kind = getattr(return_tensors, "value", return_tensors)
    if kind not in ("pt", "np"):
        raise reject("return_tensors", "'pt', 'np' or None", return_tensors)
    sizes = sorted({tuple(row.shape[-2:]) for row in rows})
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise ValueError(
            f"{key}: expected images of one size to stack, found {found}. Remedy: crop or pad them to one size, pass "
            "them one by one, or use return_tensors=None for lists."
        )
    batch = rows[0][None] if len(rows) == 1 else torch.stack(rows)
    return batch if kind == "pt" else batch.numpy()


def _resize_logits(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    resized = torch.nn.functional.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)
    return resized[0]


__all__ = ["PrithviImageProcessor", "PrithviImageProcessorKwargs", "UnitsWarning"]
