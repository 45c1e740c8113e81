# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels of whole chips, for classification: from the text of a row to class numbers."""

from collections.abc import Sequence

import torch


SEPARATOR = ";"
"""Stands between the classes of a chip that has several."""


def find_chip_classes(label: str | None, class_names: Sequence[str], multi_label: bool, chip: str) -> list[int]:
    """Find the class numbers of a chip, one or, with `multi_label`, any number of them.

    Args:
        label: names of its classes, separated by `;` with `multi_label`; what is not a name may be a class number.
        class_names: name of each class, in the order of the model's labels.
        multi_label: whether a chip may have several classes, or none.
        chip: what messages call it.

    Raises:
        ValueError: a label that is missing or is not a class.
    """
    texts = (label or "").split(SEPARATOR) if multi_label else [label or ""]
    names = [text.strip() for text in texts if text.strip() or not multi_label]
    numbers = {str(number): number for number in range(len(class_names))}
    classes = {**numbers, **{name: number for number, name in enumerate(class_names)}}
    unknown = [name for name in names if name not in classes]
    if unknown or (label is None and multi_label):
        shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")
        raise ValueError(
            f"{chip}: expected {'labels' if multi_label else 'a label'} among class_names ({shown}), found "
            f"{', '.join(map(repr, unknown)) or None}. Add the name to class_names, or correct the label."
        )
    return sorted({classes[name] for name in names})


def make_chip_labels(
    labels: Sequence[str | None], class_names: Sequence[str], multi_label: bool, chips: Sequence[str]
) -> torch.Tensor:
    """Make the labels of a batch, as [`find_chip_classes`] finds them.

    Returns:
        int64 (batch_size,), or with `multi_label` float32 (batch_size, num_labels) of zeros and ones.
    """
    pairs = zip(labels, chips, strict=True)
    found = [find_chip_classes(label, class_names, multi_label, chip) for label, chip in pairs]
    if not multi_label:
        return torch.tensor([classes[0] for classes in found])
    batch = torch.zeros(len(found), len(class_names))
    for row, classes in zip(batch, found, strict=True):
        row[classes] = 1
    return batch
