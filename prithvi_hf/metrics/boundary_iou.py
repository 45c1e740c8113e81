# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Boundary IoU: how well the contours of each class fit, which the area's IoU hardly shows for large areas.

After Cheng, Girshick, Dollar, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021.
"""

import torch
from torch.nn import functional


BOUNDARY_FRACTION = 0.02
"""Width of the band along a contour, as a fraction of the image's diagonal; that of the paper."""


def find_boundary_width(height: int, width: int, fraction: float = BOUNDARY_FRACTION) -> int:
    """Give the width of the band along a contour in pixels, at least one."""
    return max(1, round(fraction * (height**2 + width**2) ** 0.5))


def count_boundaries(
    predictions: torch.Tensor,
    references: torch.Tensor,
    num_labels: int,
    *,
    ignore_index: int = -100,
    width: int | None = None,
    edge_is_contour: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the pixels of the bands along the contours of each class; the counts of several images add up.

    The band of a class holds its pixels within `width` pixels (rows and columns, whichever is more) of a labelled
    pixel of another class, on either map by itself. Pixels without a label are neither in a band nor make a contour,
    and nor is what is beyond the edge of the image: where a chip was cut out of a scene there is no contour.

    Args:
        predictions: class indices (height, width).
        references: class indices of the same shape; `ignore_index` marks pixels without a label.
        num_labels: number of classes.
        ignore_index: the ignored reference value.
        width: of the bands in pixels; 2 % of the diagonal by default.
        edge_is_contour: take the image's edge for a contour, as the paper's own code does for photographs.

    Returns:
        Two int64 tensors (num_labels,): pixels that are in the bands of a class on both maps, and on any. Boundary IoU
        is the one over the other.

    Raises:
        ValueError: the maps are not of one shape (height, width).
    """
    if predictions.shape != references.shape or references.ndim != 2:
        raise ValueError(
            f"Expected predictions and references of one shape (height, width), got {tuple(predictions.shape)} and "
            f"{tuple(references.shape)}. Give one image at a time."
        )
    width = find_boundary_width(*references.shape) if width is None else width
    labelled = references != ignore_index
    shared = torch.zeros(2, num_labels, dtype=torch.int64, device=predictions.device)
    values = torch.cat([predictions[labelled], references[labelled]])
    for label in torch.unique(values).tolist():  # others have no pixel, and so no band
        inside = torch.stack([predictions == label, references == label]) & labelled
        bands = inside & _spread(labelled & ~inside, width, edge_is_contour)
        shared[0, label], shared[1, label] = (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()
    return shared[0], shared[1]


def boundary_metrics(intersection: torch.Tensor, union: torch.Tensor) -> dict[str, float | list[float | None] | None]:
    """Derive `mean_boundary_iou` and `per_category_boundary_iou` from pixel counts (num_labels,) each.

    A class without a contour on both maps is None, and left out of the mean.
    """
    pairs = zip(intersection.tolist(), union.tolist(), strict=True)
    values = [hits / either if either else None for hits, either in pairs]
    defined = [value for value in values if value is not None]
    return {
        "mean_boundary_iou": sum(defined) / len(defined) if defined else None,
        "per_category_boundary_iou": values,
    }


def _spread(maps: torch.Tensor, distance: int, edge: bool) -> torch.Tensor:
    """Mark the pixels of maps (n, height, width) with a marked one within a distance along rows and columns."""
    # Running sums take the same time at any distance, where `max_pool2d` takes longer the wider it looks.
    side, padding = 2 * distance + 1, (distance + 1, distance)
    for axis in (-1, -2):
        counted = functional.pad(maps.transpose(axis, -1).int(), padding, value=0)
        if edge:
            counted[..., 1 : distance + 1] = counted[..., -distance:] = 1
        sums = counted.cumsum(-1, dtype=torch.int32)
        maps = (sums[..., side:] > sums[..., :-side]).transpose(axis, -1)
    return maps
