# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A pass over chips: few of them in memory, and errors of files apart from those of the program."""

import pytest
from datasets import Dataset, Features, IterableDataset, Value

from prithvi_hf.data.chips import collect_results, read_chips
from prithvi_hf.data.geotiff import GeoTiff
from tests.raster_factory import reflectance, write_chip
from tests.raster_factory import write_raster as write


FEATURES = Features({"image": GeoTiff(), "mask": GeoTiff(), "id": Value("string")})


def test_few_chips_wait_in_memory(tmp_path):
    """However many chips there are, the rows fetched ahead of the results are a few a thread."""
    path = str(write(tmp_path / "a.tif", reflectance(2, 4)))
    fetched = []

    def rows():
        for index in range(200):
            fetched.append(index)
            yield {"image": path, "mask": None, "id": str(index)}

    dataset = IterableDataset.from_generator(rows, features=FEATURES)
    results = read_chips(dataset, lambda chip: chip.id, "Reading", show_progress=False, num_threads=2)
    assert [next(results) for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(fetched) <= 5 + 2 * 4 + 1
    results.close()


def test_faults_of_the_program_are_not_taken_for_bad_files(tmp_path):
    rows = {"image": [str(write_chip(tmp_path / "a.tif"))], "mask": [None], "id": ["chip0"]}

    def fail(chip):
        raise RuntimeError(chip.id)

    with pytest.raises(RuntimeError, match="chip0"):
        list(read_chips(Dataset.from_dict(rows, features=FEATURES), fail, "Reading", show_progress=False))


def test_errors_are_reported_together():
    with pytest.raises(ValueError, match=r"Split train: 12 of 13 files.*\n- 0\n(- .\n)*- and 2 more$"):
        collect_results([*map(str, range(12)), 7], "train", "files")
    assert collect_results([7, 8], "train") == [7, 8]
