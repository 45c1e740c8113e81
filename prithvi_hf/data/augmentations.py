# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Augmentation of the values of training crops, a user's own, and crops that are balanced by class.

Everything random follows from the numbers of a crop, see [`~prithvi_hf.data.transforms.TrainingCrops`]: crops do not
depend on workers and processes, and a resumed run draws the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from traceback import extract_tb
from typing import Any

import numpy as np
import torch

from prithvi_hf.data.chips import Chip, collect_results, read_chips
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL
from prithvi_hf.models.prithvi.pixel_values_prithvi import normalize_file_values
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions


Augmentation = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], tuple[np.ndarray, np.ndarray | None]]
"""A user's own augmentation of one training crop.

It takes the image, float32 (num_channels, num_frames, height, width) after `rescale_factor` and `rescale_offset`,
which is reflectance for most products; its mask (height, width), int64 class numbers with -100 where there is none, or
float32 values with NaN, or None where the chip has one label as a whole; and numpy's random numbers. It returns image
and mask of the same shapes, and may change those that it got.
"""
MAX_GAIN = 2.0


@dataclass(frozen=True)
class RadiometricJitter:
    """Random changes of the values of a training crop, as haze, the sun, the sensor and lost data make them.

    Offset and noise are in the units of `image_mean` and `image_std`: reflectance in most recipes, numbers of 10,000
    for a reflectance of 1 in others. Each date draws its own. Pixels without data keep their replacement.

    Args:
        band_gain (`tuple[float, float]`, *optional*): spread of the gain that all bands have in common, and of one
            more of each band; a spread s gives factors from exp(-s) to exp(s), their logarithms evenly distributed.
        band_offset (`tuple[float, float]`, *optional*): likewise what is added, evenly distributed between -s and s.
        band_noise (`float`, *optional*): standard deviation of what is added to each value on its own.
        band_dropout (`float`, *optional*): probability of each band to be replaced by its mean, never of all bands.
        frame_dropout (`float`, *optional*): probability that one of several dates is without data.

    Raises:
        ValueError: numbers outside their ranges.
    """

    band_gain: tuple[float, float] = (0.0, 0.0)
    band_offset: tuple[float, float] = (0.0, 0.0)
    band_noise: float = 0.0
    band_dropout: float = 0.0
    frame_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Read spreads that came as a list of one or two numbers, and check the ranges."""
        for name in ("band_gain", "band_offset"):
            given: Any = getattr(self, name)
            spreads = (*given, 0.0) if len(given) == 1 else tuple(given)
            limit = MAX_GAIN if name == "band_gain" else np.inf
            if len(spreads) != 2 or not all(0 <= spread <= limit and spread < np.inf for spread in spreads):
                found = f"from 0 to {limit:g}" if limit < np.inf else "of at least 0"
                raise ValueError(
                    f"Expected {name} as one or two numbers {found}, the spread common to all bands and that of each "
                    f"band, found {list(given)}."
                )
            object.__setattr__(self, name, spreads)
        for name in ("band_dropout", "frame_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Expected {name} as a probability from 0 to below 1, found {getattr(self, name)}.")
        if not 0 <= self.band_noise < np.inf:
            raise ValueError(f"Expected band_noise of at least 0, found {self.band_noise}.")

    @property
    def is_on(self) -> bool:
        """Whether it changes anything."""
        return any(np.any(getattr(self, option.name)) for option in fields(self))

    def check_options(self, options: ProcessorOptions) -> None:
        """Refuse offset and noise in other units, a date to lose where there is one, a band without known mean."""
        for name, size in (("band_offset", sum(self.band_offset)), ("band_noise", self.band_noise)):
            if size and options.do_normalize and not 0.001 < size / min(options.image_std) < 100:
                raise ValueError(
                    f"Expected {name} in the units of image_std, whose smallest is {min(options.image_std):g}, found "
                    f"{size:g}, which is {'nothing' if size < min(options.image_std) else 'everything'} beside it. "
                    "Give reflectance where rescale_factor makes reflectance, and file values without it."
                )
        if self.frame_dropout and options.num_frames < 2:
            raise ValueError(
                f"Expected several dates (num_frames) with frame_dropout, found {options.num_frames}. Leave "
                "frame_dropout out."
            )
        if self.band_dropout and (len(options.bands) < 2 or not options.do_normalize):
            raise ValueError(
                "Expected several bands that are normalised with band_dropout, found bands "
                f"{', '.join(options.bands)} and do_normalize {options.do_normalize}. Leave band_dropout out."
            )

    def apply(
        self, image: np.ndarray, mean: np.ndarray, std: np.ndarray, fill: np.ndarray, random: np.random.Generator
    ) -> None:
        """Change a normalised image in place.

        Args:
            image: float32 (num_channels, num_frames, height, width).
            mean: what was subtracted from each band, float32 (num_channels,).
            std: what each band was divided by.
            fill: the normalised value of each band in pixels without data.
            random: the random numbers.
        """
        channels, frames = image.shape[:2]
        is_missing = (image == fill[:, None, None, None]).all(axis=0)  # (num_frames, height, width)
        spread = [*self.band_gain, *self.band_offset]
        shapes = [(1, frames), (channels, frames)] * 2
        drawn = [size * random.uniform(-1, 1, shape) for size, shape in zip(spread, shapes, strict=True)]
        gain, offset = np.exp(drawn[0] + drawn[1]), drawn[2] + drawn[3]
        # gain * (image * std + mean) + offset, normalised again.
        shift = ((gain - 1) * mean[:, None] + offset) / std[:, None]
        image *= gain.astype(np.float32)[..., None, None]
        image += shift.astype(np.float32)[..., None, None]
        if self.band_noise:
            scale = (self.band_noise / std).astype(np.float32)[:, None, None, None]
            image += scale * random.standard_normal(image.shape, dtype=np.float32)
        if self.band_dropout:
            is_lost = np.asarray(random.random(channels) < self.band_dropout)
            is_lost[random.integers(channels)] &= not is_lost.all()
            image[is_lost] = 0
        is_missing[random.integers(frames)] |= random.random() < self.frame_dropout
        if is_missing.any():
            np.copyto(image, fill[:, None, None, None], where=is_missing)


def augment_crop(
    values: np.ndarray,
    labels: np.ndarray | None,
    numbers: Sequence[int],
    processor: PrithviImageProcessor,
    jitter: RadiometricJitter | None = None,
    custom_augmentation: Augmentation | None = None,
) -> None:
    """Augment a normalised crop in place, by radiometric jitter and then by a user's own function.

    Args:
        values (`np.ndarray`): `pixel_values` of one crop, float32 (num_channels, num_frames, height, width) without
            gaps in memory.
        labels (`np.ndarray`, *optional*): its labels (height, width).
        numbers (`Sequence[int]`): the random numbers of the crop.
        processor (`PrithviImageProcessor`): what the crop was normalised by.
        jitter (`RadiometricJitter`, *optional*): changes values.
        custom_augmentation (`Augmentation`, *optional*): changes values and labels.

    Raises:
        ValueError: the user's function fails, or gives something else than an image and a mask, other shapes or
            types, values that are not finite, or labels that are not a class.
    """
    options, random = processor.checked_options(), np.random.Generator(np.random.PCG64(list(numbers)))
    channels = len(options.bands)
    statistics = (options.image_mean, options.image_std) if options.do_normalize else ([0] * channels, [1] * channels)
    mean, std = (np.array(values, dtype=np.float32) for values in statistics)
    # Bands and dates that the processor mixes are in order in this view of the same memory.
    image = values
    if options.frame_order == "original_crop":
        image = values.reshape(values.shape[1], channels, *values.shape[2:]).swapaxes(0, 1)
    if jitter is not None:
        lost = torch.full((1, channels, 1, 1, 1), float(options.nodata_replacement))
        plain = processor.with_options(frame_order="time_major")
        jitter.apply(image, mean, std, normalize_file_values(lost, plain.checked_options()).numpy().ravel(), random)
    if custom_augmentation is not None:
        scale, middle = std[:, None, None, None], mean[:, None, None, None]
        own = None if labels is None else labels.copy()
        try:
            given = custom_augmentation(np.ascontiguousarray(image * scale + middle), own, random)
        except Exception as error:  # the user's own code, which may raise anything
            raise ValueError(f"{name_function(custom_augmentation)}: {explain_own_error(error)}") from error
        augmented, mask = check_augmented(given, image, labels, options.num_labels, custom_augmentation)
        image[...] = (augmented - middle) / scale
        if labels is not None:
            labels[...] = mask


def check_augmented(
    given: Any,
    image: np.ndarray,
    labels: np.ndarray | None,
    num_labels: int | None,
    function: Callable[..., Any],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check what a user's augmentation gave for an image and its labels, and return both."""
    name = name_function(function)
    if not isinstance(given, tuple) or len(given) != 2:
        found = f"{len(given)} values" if isinstance(given, tuple) else type(given).__name__
        raise ValueError(f"{name}: expected it to return image and mask, found {found}. Return (image, mask).")
    for what, own, new in (("image", image, given[0]), ("mask", labels, given[1])):
        kinds = "f" if what == "image" or (own is not None and own.dtype.kind == "f") else "iu"
        if own is None and new is None:
            continue
        if own is None or not isinstance(new, np.ndarray) or new.shape != own.shape or new.dtype.kind not in kinds:
            wanted = "None" if own is None else f"an array of {own.dtype} {tuple(own.shape)}"
            found = f"one of {new.dtype} {tuple(new.shape)}" if isinstance(new, np.ndarray) else type(new).__name__
            raise ValueError(f"{name}: expected the {what} back as {wanted}, found {found}. Correct what it returns.")
    augmented, mask = given
    if not np.isfinite(augmented).all():
        raise ValueError(
            f"{name}: expected finite values in the image, found {int((~np.isfinite(augmented)).sum())} that are not. "
            "Correct what it returns; a logarithm or root of a value below zero is a usual cause."
        )
    if mask is not None and mask.dtype.kind in "iu":
        last = np.iinfo(np.int64).max if num_labels is None else num_labels - 1
        wrong = np.unique(mask[(mask != IGNORED_LABEL) & ((mask < 0) | (mask > last))])
        if wrong.size:
            raise ValueError(
                f"{name}: expected class numbers from 0 to {last} or {IGNORED_LABEL} in the mask, found "
                f"{', '.join(map(str, wrong[:10]))}. Correct what it returns."
            )
    return augmented, mask


def name_function(function: Callable[..., Any]) -> str:
    """Name a user's function, or the class of a callable object, with its module."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def explain_own_error(error: Exception) -> str:
    """Say what went wrong in a user's own code, and in which line of it."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} in line {error.lineno} of {error.filename}. Correct it there."
    last = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} in line {last.lineno} of {last.filename}. Correct it there."


def find_augmentation(name: str) -> Augmentation:
    """Import a user's augmentation by its dotted name, `module.function`.

    Importing runs the module's code: take the name from a recipe of your own alone.

    Raises:
        ValueError: a name that cannot be imported or is not callable, or a module that fails.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"Expected custom_augmentation as module.function, found {name!r}: {error}. Put the folder of the module "
            "on Python's path (PYTHONPATH=.), or correct the name."
        ) from error
    except Exception as error:  # the user's own module, which may raise anything
        raise ValueError(
            f"Expected to import {module} for custom_augmentation, found {explain_own_error(error)}"
        ) from error
    if not callable(found):
        raise ValueError(
            f"Expected custom_augmentation to name a function of (image, mask, random), found {name}, which is "
            f"{type(found).__name__}. Name a function."
        )
    return found


def count_class_pixels(
    chips: Any,
    processor: PrithviImageProcessor,
    num_labels: int,
    split_name: str = "train",
    find_classes: Callable[[Chip], list[int]] | None = None,
    show_progress: bool = True,
) -> np.ndarray:
    """Count the labelled pixels of each class in each chip, by which `TrainingCrops` balances.

    Args:
        chips (`datasets.Dataset` or `CachedChips`): rows with `image` and `mask`.
        processor (`PrithviImageProcessor`): the one of training.
        num_labels (`int`): number of classes.
        split_name (`str`, *optional*, defaults to `"train"`): for messages.
        find_classes (`Callable`, *optional*): gives the class numbers of a chip whose label is of the whole; each
            counts once.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.

    Returns:
        `np.ndarray`: int64 (chips, num_labels).

    Raises:
        ValueError: files that cannot be read, each by name, or no label.
    """

    def count(chip: Chip) -> np.ndarray:
        if find_classes is not None:
            return np.bincount(find_classes(chip), minlength=num_labels)
        if chip.mask is None:
            raise ValueError(f"{chip.id}: expected a mask, found none")
        labels = np.asarray(processor.read_image(chip.image, chip.mask, check_units=False).labels)
        return np.bincount(labels[labels != IGNORED_LABEL], minlength=num_labels)

    results = read_chips(chips, count, f"Counting classes of {split_name}", show_progress)
    counts = np.stack(collect_results(results, split_name))
    if not counts.any():
        raise ValueError(f"Split {split_name}: expected labels to balance by class, found none. Check ignore_values.")
    return counts
