# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of jobs are options of `predict_scene`, and no others."""

import pytest
from pydantic import ValidationError

from prithvi_hf.scenes.predict_scene import OPTION_NAMES, sort_options
from prithvi_hf.serving.schemas import JobOptions, Summary, UrlRequest


def test_options_have_the_names_and_defaults_of_predict_scene():
    given = JobOptions().model_dump(exclude={"outputs"})
    assert set(given) <= {name for names in OPTION_NAMES.values() for name in names}
    _, *sorted_options = sort_options({name: value for name, value in given.items() if value is not None})
    assert sorted_options == list(sort_options({})[1:])


@pytest.mark.parametrize(
    "name", ["grid", "window", "batch_size", "allow_remote", "allow_vrt", "verify", "output", "device"]
)
def test_what_names_files_or_is_the_operators_is_no_option(name):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        JobOptions(**{name: True})


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": 0.95},
        {"overlap": float("nan")},
        {"resolution": 0},
        {"rescale_factor": float("inf")},
        {"dates": []},
        {"dates": ["x" * 200]},
        {"location": [1]},
        {"outputs": ["report"]},
        {"outputs": ["map"] * 9},
        {"band_map": {"RED": []}},
        {"band_map": {"": 1}},
        {"band_indices": list(range(101))},
        {"polygon_classes": []},
        {"min_area": -1},
        {"location": [float("nan"), 0]},
        {"tta": "d8"},
        {"scale": None},
    ],
)
def test_values_are_limited(options):
    with pytest.raises(ValidationError):
        JobOptions(**options)


def test_a_summary_has_no_path_of_the_server():
    assert not {"files", "outputs", "scene"} & Summary.model_fields.keys()


@pytest.mark.parametrize(
    "request_", [{}, {"urls": []}, {"urls": ["x" * 5000]}, {"urls": ["x"] * 101}, {"urls": ["x"], "headers": {}}]
)
def test_a_request_has_a_few_short_addresses_and_options(request_):
    with pytest.raises(ValidationError, match=r"urls|headers"):
        UrlRequest(**request_)
    assert UrlRequest(urls=["https://a/x.tif"], options={"overlap": 0.2}).options == JobOptions(overlap=0.2)
