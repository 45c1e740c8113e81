# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fields by the names of the original code."""

from enum import Enum

import pytest

from prithvi_hf import PrithviConfig
from prithvi_hf.models.prithvi.original_fields_prithvi import ORIGINAL_FIELDS, read_original_fields


class Bands(Enum):
    BLUE = "BLUE"
    NIR = "NIR_NARROW"


def test_every_field_is_one_of_the_configuration():
    assert {name for name in ORIGINAL_FIELDS.values() if not hasattr(PrithviConfig(), name)} == set()


def test_names_become_fields_and_others_are_left_out():
    values = {
        "img_size": [224, 224],
        "patch_size": 14,
        "tubelet_size": 2,
        "embed_dim": 1280,
        "depth": None,
        "other": 1,
    }
    assert read_original_fields(values) == {"image_size": 224, "patch_size": [2, 14, 14], "hidden_size": 1280}
    assert read_original_fields({"img_size": [224, 112]}) == {"image_size": [224, 112]}


@pytest.mark.parametrize(
    ("bands", "names"),
    [
        (["B02", "B05", "B07"], ["BLUE", "NIR_NARROW", "SWIR_2"]),  # HLS L30
        (["B02", "B8A"], ["B02", "B8A"]),  # another sensor's
        ([Bands.BLUE, Bands.NIR], ["BLUE", "NIR_NARROW"]),
        (["HLSBands.RED"], ["RED"]),
    ],
)
def test_bands_are_named_by_code_name_or_enumeration(bands, names):
    assert read_original_fields({"bands": bands}) == {"bands": names, "num_channels": len(names)}
