# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of the Prithvi models: bands, nodata, scale, statistics, frames, labels and post-processing.

Arrays and rasters come in as they are in the file; `pixel_values` (batch_size, num_channels, num_frames, height,
width) and `labels` (batch_size, height, width) come out. Everything that the model was trained with is an attribute,
saved in `preprocessor_config.json`, so that inference applies what training applied, once. Neither Pillow nor
torchvision is needed.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.processing_utils import ImagesKwargs, Unpack

from .bands_prithvi import find_band_names
from .configuration_prithvi import read_json
from .coordinates_prithvi import (
    CoordinatesWarning,
    check_location,
    encode_dates,
    encode_location,
    is_in_time_order,
)
from .labels_prithvi import make_labels, name_mask, read_labels, read_mask
from .pixel_values_prithvi import (
    Frame,
    Image,
    ImageValues,
    Pixels,
    ReadImage,
    UnitsWarning,
    as_frames,
    describe_units_problem,
    find_nodata,
    find_used_bands,
    name_image,
    normalize_file_values,
    read_frames,
    replacement_changes_nothing,
    scale_and_normalize,
)
from .processor_options_prithvi import (
    CALL_OPTION_NAMES,
    OPTION_NAMES,
    CallOptions,
    Number,
    ProcessorOptions,
    to_json_number,
    update_options,
)
from .remote_code_prithvi import CODE_KEYS, IMAGE_PROCESSOR_FILE, RemoteCodeMixin, without_remote_code


# Resizing, cropping, padding and colour conversion of photographs; asked for, they are refused, not left undone.
_OPTIONS_OF_OTHERS = set(ImagesKwargs.__annotations__) - set(OPTION_NAMES) - set(CALL_OPTION_NAMES)
_SERVICE_KEYS = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")
_get_units = attrgetter("bands", "do_rescale", "rescale_factor", "rescale_offset", "image_mean", "image_std")
_DEFAULTS = ProcessorOptions()
_NO_CALL_OPTIONS = CallOptions()


class PrithviImageProcessorKwargs(ImagesKwargs, total=False):
    """Options of `PrithviImageProcessor` and, the last four, of a single call; the class documents them."""

    bands: list[str]
    band_indices: list[int] | None
    band_map: dict[str, str | int] | None
    band_names: list | tuple | None
    num_frames: int
    frame_order: str
    rescale_offset: float
    nodata_value: float | list[float] | None
    nodata_replacement: float
    nodata_rule: str
    ignore_values: list[int] | None
    label_map: dict[int, int] | None
    do_reduce_labels: bool
    num_labels: int | None
    mask_nodata_labels: bool
    first_day_of_year: int
    label_type: str
    target_rescale_factor: float
    target_rescale_offset: float
    target_nodata_value: float | list[float] | None
    target_range: list[float] | None
    training_statistics: dict[str, int | list[float]] | None
    file_nodata: float | list | None
    return_nodata_mask: bool | None
    names: str | list | tuple | None


class PrithviImageProcessor(RemoteCodeMixin, BaseImageProcessor):
    r"""Prepare multispectral images and masks for the Prithvi models.

    One image is an array or tensor (num_channels, height, width) or (num_channels, num_frames, height, width),
    or a raster (an object with `read`, `read_nodata_mask`, `shape`, `count`, `descriptions`, `nodata` and `name`, such
    as `prithvi_hf.rasters.geotiff_raster.GeoTiffRaster`), or the path of a GeoTIFF, an open rasterio dataset, or a
    DataArray or Dataset of xarray, with bands and dates in any order; or a tuple or inner list of frames, each of one
    of these forms. A list, or an array of five dimensions, is a batch. Of rasters only the needed bands are read.

    Bands are found by name in the band descriptions, in any order and by the names or codes of Sentinel-2, HLS and
    Landsat 4 to 9; `band_names`, `band_indices` and `band_map` win over descriptions. A file without descriptions is
    taken in order when it has `len(bands)` bands. A single file or array that has each band `num_frames` times is a
    stack of dates: described, its dates are told by the descriptions or by their order in the file; without
    descriptions, all bands of the first date come first, then all bands of the second.

    No data: a value is nodata when it is NaN, infinite or of 1e30 and more, or when it equals the file's tag or
    `nodata_value` (floats to a relative 1e-6, as tags are written with fewer digits than pixels). A pixel is nodata
    when every used band is (rule `"any"`: when one band is), or when the file's own mask or alpha band says so. With
    several frames a pixel is nodata when it is so in every frame (rule `"any"`: in one frame). Beside this rule for
    pixels, each single nodata value, and every band of a nodata pixel, is replaced by `nodata_replacement` before
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
        band_indices (`list[int]`, *optional*): 0-based positions of `bands` in files that have so many bands,
            whatever these are called there; a warning says where descriptions disagree.
        band_map (`dict[str, str or int]`, *optional*): which band of a file to use for some of `bands`: a description
            or code in the file, or a 0-based position, such as `{"NIR_NARROW": "B08"}`. Others are found as usual.
        band_names (`list[str]`, *optional*): names of all bands of a file, in its order, in place of descriptions.
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
        nodata_value (`float` or `list[float]`, *optional*): values that mean "no data", beside the file's tag, NaN and
            values of 1e30 and more.
        nodata_replacement (`float`): value that replaces nodata, in the units of the file.
        nodata_rule (`str`): `"all"` or `"any"`, see above.
        ignore_values (`list[int]`, *optional*): mask values that become -100, such as -1 or 255. NaN and -100 always
            do, and so do pixels that the mask's file marks as nodata: by a mask or alpha band, or by a nodata tag that
            is not the value of a class.
        label_map (`dict[int, int]`, *optional*): class number of mask values, for masks of other values than class
            numbers, such as `{255: 1}` of a mask of 0 and 255, or `{10: 0, 20: 1, 30: 2}`. Values that it does not
            name stay as they are. It names no value of `ignore_values`.
        do_reduce_labels (`bool`): whether 0 becomes -100 and 1..n become 0..n-1; not beside `label_map`.
        num_labels (`int`, *optional*): number of classes; any other value in a mask is then an error.
        mask_nodata_labels (`bool`): whether labels of nodata pixels become -100 (NaN of `"value"`). The published
            metrics count them.
        first_day_of_year (`int`): what 1 January counts as in `temporal_coords`, 0 or 1, as the model was trained.
        training_statistics (`dict`, *optional*): how the band means of training chips spread, as a training measured
            it: images that are far from it are warned of, see [`~models.prithvi.input_shift_prithvi.check_input`].

    Example:
        >>> import numpy as np
        >>> from prithvi_hf import PrithviImageProcessor
        >>> processor = PrithviImageProcessor(nodata_value=-9999)
        >>> chip = np.full((6, 224, 224), 1500, dtype=np.int16)
        >>> processor(chip, return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 6, 1, 224, 224])
    """

    valid_kwargs = PrithviImageProcessorKwargs
    model_input_names = ["pixel_values", "temporal_coords", "location_coords"]

    # As attributes of the class too, as in every image processor of transformers, so that a subclass may set its own.
    bands: list[str] = _DEFAULTS.bands
    band_indices: list[int] | None = _DEFAULTS.band_indices
    band_map: dict[str, str | int] | None = _DEFAULTS.band_map
    band_names: list[str | None] | None = _DEFAULTS.band_names
    num_frames: int = _DEFAULTS.num_frames
    frame_order: str = _DEFAULTS.frame_order
    do_rescale: bool = _DEFAULTS.do_rescale
    rescale_factor: Number = _DEFAULTS.rescale_factor
    rescale_offset: Number = _DEFAULTS.rescale_offset
    do_normalize: bool = _DEFAULTS.do_normalize
    image_mean: list[Number] = _DEFAULTS.image_mean
    image_std: list[Number] = _DEFAULTS.image_std
    nodata_value: Number | list[Number] | None = _DEFAULTS.nodata_value
    nodata_replacement: Number = _DEFAULTS.nodata_replacement
    nodata_rule: str = _DEFAULTS.nodata_rule
    ignore_values: list[int] | None = _DEFAULTS.ignore_values
    label_map: dict[int, int] | None = _DEFAULTS.label_map
    do_reduce_labels: bool = _DEFAULTS.do_reduce_labels
    num_labels: int | None = _DEFAULTS.num_labels
    mask_nodata_labels: bool = _DEFAULTS.mask_nodata_labels
    first_day_of_year: int = _DEFAULTS.first_day_of_year
    label_type: str = _DEFAULTS.label_type
    target_rescale_factor: Number = _DEFAULTS.target_rescale_factor
    target_rescale_offset: Number = _DEFAULTS.target_rescale_offset
    target_nodata_value: Number | list[Number] | None = _DEFAULTS.target_nodata_value
    target_range: list[Number] | None = _DEFAULTS.target_range
    training_statistics: dict[str, int | list[Number]] | None = _DEFAULTS.training_statistics

    def __init__(self, **kwargs: Unpack[PrithviImageProcessorKwargs]) -> None:
        given: dict[str, Any] = dict(kwargs)
        service = {key: given.pop(key, None) for key in _SERVICE_KEYS}
        super().__init__()
        if service["auto_map"] is not None:
            self.auto_map = service["auto_map"]
        if only_calls := sorted(set(CALL_OPTION_NAMES) - set(OPTION_NAMES) & set(given)):
            raise TypeError(f"{', '.join(only_calls)}: expected in a call, found in the constructor of the processor")
        own = {name: getattr(type(self), name) for name in OPTION_NAMES}
        options = update_options(_DEFAULTS, own | self._drop_options_of_others(given))
        for name in OPTION_NAMES:
            setattr(self, name, getattr(options, name))
        self._units_warned: dict[str, object] = {}
        self._checked: tuple[dict[str, Any], ProcessorOptions] | None = None

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `preprocessor_config.json`, for `from_pretrained`; one of a folder that is ambiguous is refused."""
        file = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "", IMAGE_PROCESSOR_FILE)
        if file.is_file():
            read_json(file)
        return super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the options that are attributes and are saved in `preprocessor_config.json`."""
        return list(OPTION_NAMES)

    def checked_options(self) -> ProcessorOptions:
        """Return the processor's own options; they are checked when they are not those of the last time."""
        values = {name: getattr(self, name) for name in OPTION_NAMES}
        if self._checked is None or values != self._checked[0]:
            self._checked = (deepcopy(values), update_options(_DEFAULTS, values))  # lists may be changed in place
        return self._checked[1]

    def _drop_options_of_others(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse unknown options and those of photographs, unless these are off; they are left out then."""
        if unknown := sorted(set(given) - set(self.valid_kwargs.__annotations__)):
            raise TypeError(
                f"{type(self).__name__}: unknown option {', '.join(unknown)}; expected some of "
                f"{', '.join(OPTION_NAMES)}"
            )
        others = _OPTIONS_OF_OTHERS & set(given)
        if wanted := sorted(name for name in others if given[name] not in (None, False)):
            raise ValueError(
                f"{type(self).__name__}: expected no resizing, cropping, padding or conversion, found "
                f"{', '.join(wanted)}. Remedy: leave the option out, and crop or pad before the processor."
            )
        return {name: value for name, value in given.items() if name not in others}

    def to_dict(self) -> dict[str, Any]:
        """Return every option, in a form that JSON holds without loss: a nodata value of NaN is `"nan"`."""
        output = {name: deepcopy(getattr(self, name)) for name in OPTION_NAMES}
        output["nodata_value"] = to_json_number(output["nodata_value"])
        output["image_processor_type"] = type(self).__name__
        if getattr(self, "auto_map", None) is not None:
            output["auto_map"] = deepcopy(self.auto_map)
        return output if CODE_KEYS.isdisjoint(output) else without_remote_code(type(self), output)

    def preprocess(
        self,
        images: Image | Sequence[Image],
        segmentation_maps: Pixels | Sequence[Pixels] | None = None,
        dates: Any = None,
        locations: Any = None,
        **kwargs: Unpack[PrithviImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepare one image or a batch, with or without masks.

        Args:
            images: one image, or a list (or 5-D array) of images; see the class for what an image is.
            segmentation_maps: one mask per image, or None: arrays (height, width) or (1, height, width), or rasters of
                one band. Values are class numbers; floats must be whole; NaN and -100 are ignored.
            dates: for models with "time" in `config.coords_encoding`: the date of an image of one frame, or a list
                with that of each frame; of a batch a list with one such entry per image. A date is a datetime, a date,
                ISO text, or (year, day of the year) where 1 January counts as `first_day_of_year`; None is unknown.
            locations: for models with "location" in it: latitude and longitude of an image's centre in degrees (WGS
                84); of a batch a list with one such pair, or None, per image.
            **kwargs: any option of the class, for this call only, and

                - `band_names`: band descriptions of arrays, or in place of the files' own: one list for all images, or
                  one list per image;
                - `file_nodata`: nodata tag of images that carry none, such as arrays: one number for all, or a list
                  with one entry per image;
                - `return_nodata_mask`: whether to return `nodata_mask`;
                - `names`: what messages call the images: a text for a single image, else a list;
                - `return_tensors`: `"pt"` or `"np"` stack the batch; None gives lists with one tensor per image, which
                  may differ in size.

        Returns:
            `pixel_values` float32 (batch_size, num_channels, num_frames, height, width); with masks `labels` int64
            (batch_size, height, width), ignored pixels -100; if asked `nodata_mask` bool (batch_size, height, width),
            True where there is no data; with dates `temporal_coords` float32 (batch_size, num_frames, 2), year and day
            of the year; with locations `location_coords` float32 (batch_size, 2); NaN where unknown.

        Raises:
            ValueError: an image or a mask does not fit the options or the other images; the message says what was
                expected, what was found and what to do.
            TypeError: an unknown option, or an object that is not an image.
        """
        given = self._drop_options_of_others(kwargs)
        call = update_options(_NO_CALL_OPTIONS, {name: given.pop(name) for name in CALL_OPTION_NAMES if name in given})
        # The usual call sets no option of the class: checking them all again would take longer than the work.
        options = update_options(self.checked_options(), given) if given else self.checked_options()
        # Anything but a list or a 5-D array is one image.
        is_batch = isinstance(images, list) or (isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 5)
        batch = list(cast(Sequence[Image], images)) if is_batch else [cast(Image, images)]
        if not batch:
            raise ValueError("images: expected at least one image, found an empty batch")
        maps = [None] * len(batch) if segmentation_maps is None else _as_batch_of_maps(segmentation_maps, len(batch))
        band_names = call.band_names
        if not any(isinstance(item, list) for item in band_names or ()):  # one list for all images
            band_names = [band_names] * len(batch)
        band_names = _repeat("band_names", band_names, len(batch))
        names = _repeat("names", call.names, len(batch))
        tags = _repeat("file_nodata", call.file_nodata, len(batch))
        data: dict[str, list[torch.Tensor]] = {}
        coordinates = self.encode_coordinates(dates, locations, len(batch) if is_batch else None, options)
        for i, (image, segmentation_map) in enumerate(zip(batch, maps, strict=True)):
            name = names[i] or name_image(image, i)
            frames = read_frames(image, options, name, tags[i], band_names[i])
            missing, nodata_mask = find_nodata(frames, options)
            self.check_units(frames, missing, name, options)
            values = scale_and_normalize(frames, missing, options)
            data.setdefault("pixel_values", []).append(torch.from_numpy(values))
            if locations is not None:
                check_location(image, coordinates["location_coords"][i], name)
            if segmentation_map is not None:
                labels = read_labels(segmentation_map, nodata_mask, options, name)
                data.setdefault("labels", []).append(torch.from_numpy(labels))
            if call.return_nodata_mask:
                data.setdefault("nodata_mask", []).append(torch.from_numpy(nodata_mask))
        output = {key: _stack(key, rows, call.return_tensors) for key, rows in data.items()}
        for key, values in coordinates.items():
            tensor = torch.from_numpy(values)
            output[key] = {"pt": tensor, "np": values, None: list(tensor)}[call.return_tensors]
        return BatchFeature(data=output)

    def encode_coordinates(
        self, dates: Any, locations: Any, batch_size: int | None = None, options: ProcessorOptions | None = None
    ) -> dict[str, np.ndarray]:
        """Give `temporal_coords` (batch_size, num_frames, 2) and `location_coords` (batch_size, 2) of images.

        What is None is left out. Both are as in a call of the processor: of one image (batch_size None), or lists.

        Raises:
            ValueError: a date or a place that cannot be, or another number of them than of images or frames.
        """
        options, found = self.checked_options() if options is None else options, {}
        for name, values in (("dates", dates), ("locations", locations)):
            if values is None:
                continue
            rows = [values] if batch_size is None else list(values)
            if len(rows) != (batch_size or 1):
                raise ValueError(f"{name}: expected one entry for each of {batch_size} images, found {len(rows)}")
            if name == "locations":
                found["location_coords"] = np.stack([encode_location(row, name) for row in rows])
                continue
            encoded = [encode_dates(row, options.num_frames, options.first_day_of_year, name) for row in rows]
            found["temporal_coords"] = np.stack(encoded)
            if not all(map(is_in_time_order, encoded)):
                warnings.warn(
                    "dates: expected frames in time order, found others. The order is kept as given: change it if the "
                    "model was trained with the oldest frame first.",
                    CoordinatesWarning,
                    stacklevel=3,
                )
        return found

    def normalize_file_values(self, file_values: torch.Tensor) -> torch.Tensor:
        """Turn what `SegmentationTransform(normalize=False)` gives, (B, C, T, H, W), into `pixel_values`."""
        return normalize_file_values(file_values, self.checked_options())

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a model that takes other bands or frames than this processor prepares, or bands in another order.

        Args:
            config: the model's `PrithviConfig`. Bands are compared by meaning: `"B8A"` is `"NIR_NARROW"`.

        Raises:
            ValueError: they do not fit; the message says what was expected and found.
        """
        expected, found = config.bands or self.bands, self.bands
        matches = found == expected or find_band_names(found, expected) == list(range(len(found)))
        if len(found) != config.num_channels or not matches:
            names = ", ".join(config.bands or [f"{config.num_channels} without names"])
            raise ValueError(
                f"bands: expected those of the model, in its order, {names} (config.bands), found an image processor "
                f"of {', '.join(found)}. Remedy: use the image processor that was saved with the model, or fit the "
                "model to these bands with model.set_bands and fine-tune it."
            )
        if self.num_frames != config.num_frames:
            raise ValueError(
                f"num_frames: expected {config.num_frames}, as the model takes (config.num_frames), found an image "
                f"processor of {self.num_frames}. Remedy: use the image processor that was saved with the model."
            )

    def find_bands(
        self, descriptions: Sequence[str | None] | None, count: int, name: str = "", **options: Any
    ) -> list[int]:
        """Find the 0-based positions of `bands`, in this order, in a file of `count` bands, or refuse the file.

        For a file that stacks `num_frames` dates they are those of the first date, then of the second. Options, such
        as `band_map`, are those of the class, for this call.
        """
        own = self.checked_options()
        own = update_options(own, options) if options else own
        return find_used_bands(descriptions, count, own, own.num_frames, name)[0]

    def with_options(self, **options: Any) -> "PrithviImageProcessor":
        """Return a processor with other options of the class; None leaves one as it is.

        A `rescale_factor` or `rescale_offset` that is given is applied: `do_rescale` becomes True.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if {"rescale_factor", "rescale_offset"} & set(given) and not self.do_rescale:
            given = {"do_rescale": True, "rescale_factor": 1.0, "rescale_offset": 0.0, **given}
        if not given:
            return self
        changed = copy(self)
        for name, value in vars(update_options(self.checked_options(), given)).items():
            setattr(changed, name, value)
        return changed

    def read_frames(
        self, image: Image, name: str | None = None
    ) -> tuple[list[Frame], list[np.ndarray | None], np.ndarray]:
        """Read one image, which messages call `name`, up to where values are replaced, scaled and normalised.

        Returns:
            The frames with the values of `bands` as in the file; for each frame its missing values, bool
            (num_channels, height, width) or None; and the nodata pixels, bool (height, width).
        """
        options = self.checked_options()
        frames = read_frames(image, options, name or name_image(image, 0))
        return frames, *find_nodata(frames, options)

    def read_image(
        self,
        image: Image,
        segmentation_map: Pixels | None = None,
        check_units: bool = True,
        labels: np.ndarray | None = None,
    ) -> ReadImage:
        """Read one image with its mask; `write_pixel_values()` and `labels` are what a call of the processor gives.

        Without `check_units` there is no `UnitsWarning`, and nodata pixels are only looked for where that changes
        values or labels. `labels` is an array to write them into, contiguous, int64 or, with `num_labels`, int16.
        """
        return self.examine(self.open_image(image, segmentation_map), check_units, labels)

    def open_image(self, image: Image, segmentation_map: Pixels | None = None) -> ImageValues:
        """Read one image with its mask as they are in their files; of rasters in memory nothing is copied."""
        options, name = self.checked_options(), name_image(image, 0)
        frames = read_frames(image, options, name)
        if segmentation_map is None:
            return ImageValues(frames, None, options)
        return ImageValues(frames, read_mask(segmentation_map, name_mask(segmentation_map, name)), options)

    def examine(self, image: ImageValues, check_units: bool = True, labels: np.ndarray | None = None) -> ReadImage:
        """Find what is missing in an image, or a part of one, and make the labels: the second half of `read_image`."""
        frames, options, name = image.frames, image.options, image.frames[0].name
        missing: list[np.ndarray | None] = [None] * len(frames)
        nodata_mask = None
        nothing_missing = image.nothing_missing or replacement_changes_nothing(frames, options)
        if check_units or options.mask_nodata_labels or not nothing_missing:
            missing, nodata_mask = find_nodata(frames, options)
        if check_units:
            self.check_units(frames, missing, name, options)
        if image.mask is not None:
            size = frames[0].values.shape[-2:]
            labels = make_labels(image.mask, size, nodata_mask, options, labels, name)
        return ReadImage(frames, missing, nodata_mask, None if image.mask is None else labels, options)

    def check_units(
        self,
        frames: Sequence[Frame],
        missing: Sequence[np.ndarray | None],
        name: str,
        options: ProcessorOptions | None = None,
    ) -> None:
        """Warn, once for each set of options, where what `read_frames` returned is plainly in other units."""
        options = self.checked_options() if options is None else options
        key = repr(_get_units(options))
        worker = torch.utils.data.get_worker_info()
        # Every worker process of a DataLoader holds its own copy of the processor: one of them speaks for all.
        if not options.do_normalize or key in self._units_warned or (worker is not None and worker.id != 0):
            return
        problem = describe_units_problem(frames, missing, options, name)
        own = object()
        # In one step: several threads may read chips with one processor and find the same problem at once.
        if problem is not None and self._units_warned.setdefault(key, own) is own:
            warnings.warn(problem, UnitsWarning, stacklevel=2)

    def restore_frame_order(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Put band c of date t of one image, (C, T, H, W), at [c, t] whatever `frame_order` is, for pictures."""
        if self.frame_order == "time_major":
            return pixel_values
        channels, frames = pixel_values.shape[:2]
        return pixel_values.reshape(frames, channels, *pixel_values.shape[2:]).transpose(0, 1)

    def post_process_semantic_segmentation(
        self,
        outputs: SemanticSegmenterOutput | Mapping[str, torch.Tensor],
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Turn logits into maps of class numbers.

        Args:
            outputs: model output with `logits` (batch_size, num_labels, height, width).
            target_sizes: (height, width) of each map, or None for the size of the logits. Logits of another size are
                resized bilinearly first.

        Returns:
            One int64 tensor (height, width) per image, values 0..num_labels-1.

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
                f"found {len(sizes)}: {sizes}. Remedy: pass a list with one (height, width) per image."
            )
        maps = []
        for image, size in zip(logits, sizes, strict=True):
            if tuple(image.shape[-2:]) != size:
                image = torch.nn.functional.interpolate(image[None].float(), size=size, mode="bilinear")[0]
            maps.append(image.argmax(dim=0))
        return maps


def _as_batch_of_maps(maps: Pixels | Sequence[Pixels], batch_size: int) -> list[Pixels]:
    """Give one mask per image."""
    dimensions = maps.ndim if isinstance(maps, np.ndarray | torch.Tensor) else None
    is_single = dimensions == 2 or (dimensions == 3 and batch_size == 1)
    is_single |= dimensions is None and not isinstance(maps, list | tuple)
    batch = [as_frames(one)[0] for one in ([maps] if is_single else cast(Sequence[Any], maps))]
    if len(batch) != batch_size:
        raise ValueError(
            f"segmentation_maps: expected one mask for each of {batch_size} images, found {len(batch)}. Remedy: pass "
            "a list with one mask per image."
        )
    return batch


def _repeat(option: str, value: Any, batch_size: int) -> list[Any]:
    """Give one value per image, from one value for all or a list."""
    if not isinstance(value, list):
        return [value] * batch_size
    if len(value) != batch_size:
        raise ValueError(f"{option}: expected one entry for each of {batch_size} images, found {len(value)}")
    return value


def _stack(key: str, rows: list[torch.Tensor], return_tensors: str | None) -> Any:
    """Give a batch in the form asked for."""
    if return_tensors is None:
        return rows
    sizes = sorted({tuple(row.shape[-2:]) for row in rows})
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise ValueError(
            f"{key}: expected images of one size to stack, found {found}. Remedy: crop or pad them to one size, pass "
            "them one by one, or use return_tensors=None for lists."
        )
    batch = rows[0][None] if len(rows) == 1 else torch.stack(rows)
    return batch if return_tensors == "pt" else batch.numpy()
