# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of chips: the rows of the Parquet file, its geometry, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prithvi_hf import embed_chips, load_dataset
from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.raster_factory import cut_off, make_burn_scars
from tests.scene_factory import scene_pixels, tiny_model, tiny_processor, write_scene


def embed(model, chips, output: Path, **options) -> list[dict]:
    """The rows of the file."""
    count = embed_chips(model, tiny_processor(), chips, output, show_progress=False, **options)
    rows = pq.read_table(output).to_pylist()
    assert len(rows) == count
    return rows


def encode(model, file: Path) -> np.ndarray:
    """The tokens (1 + rows * columns, E) of a chip padded to whole patches."""
    pixel_values = tiny_processor()([GeoTiffRaster(file)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.prithvi(pad_by_reflection(pixel_values, (16, 16))[0]).last_hidden_state[0].numpy()


def test_files_of_any_size_become_rows_with_their_places(tmp_path: Path) -> None:
    sizes = [(32, 32), (32, 32), (40, 70), (32, 32), (20, 20)]
    files = [write_scene(tmp_path / f"chip_{i}.tif", scene_pixels(*size, seed=i)) for i, size in enumerate(sizes)]
    files[-1] = write_scene(tmp_path / "HLS.S30.T10SEH.2022158T184919.v2.0.tif", scene_pixels(20, 20), crs=None)
    model = tiny_model()
    rows = embed(model, files, tmp_path / "chips.parquet", batch_size=2)
    assert [row["id"] for row in rows] == [Path(file).stem for file in files]
    assert [row["dates"] for row in rows] == [*[[None]] * 4, ["2022-06-07"]]
    for row, file in zip(rows, files, strict=True):
        np.testing.assert_allclose(row["embedding"], encode(model, file)[1:].mean(axis=0), atol=1e-5)
    assert rows[-1]["longitude"] is None
    assert rows[-1]["geometry"] is None
    # EPSG:32720 is UTM zone 20 south: its central meridian is 63 degrees west.
    assert rows[0]["longitude"] == pytest.approx(-63.9268, abs=1e-3)
    assert rows[0]["latitude"] == pytest.approx(-14.4719, abs=1e-3)
    classes = embed(model, files, tmp_path / "cls.parquet", pooling="cls")
    np.testing.assert_allclose(classes[2]["embedding"], encode(model, files[2])[0], atol=1e-5)


def test_it_is_a_geoparquet_file_that_says_what_it_holds(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    files = [write_scene(tmp_path / f"{name}.tif") for name in "ab"]
    rows = embed(tiny_model(), files, tmp_path / "chips.parquet")
    frame = geopandas.read_parquet(tmp_path / "chips.parquet")
    assert frame.crs.to_string() == "OGC:CRS84"
    assert (frame.geometry.x[0], frame.geometry.y[0]) == (rows[0]["longitude"], rows[0]["latitude"])
    about = json.loads(pq.read_schema(tmp_path / "chips.parquet").metadata[b"prithvi_hf"])
    assert (about["layer"], about["pooling"]) == (0, "mean")


def test_patches_without_data_do_not_count_and_a_chip_without_any_has_no_embedding(tmp_path: Path) -> None:
    pixels = scene_pixels(32, 48)
    pixels[:, :, 16:] = -9999
    pixels[:, 17, 20] = 500  # one pixel of the patch in row 1 and column 1
    file = write_scene(tmp_path / "half.tif", pixels)
    empty = write_scene(tmp_path / "empty.tif", np.full_like(pixels, -9999))
    rows = embed(tiny_model(), [file, empty], tmp_path / "chips.parquet")
    tokens = encode(tiny_model(), file)[1:].reshape(2, 3, -1)
    expected = (tokens[0, 0] + tokens[1, 0] + tokens[1, 1]) / 3
    np.testing.assert_allclose(rows[0]["embedding"], expected, atol=1e-5)
    assert rows[1]["embedding"] is None


def test_splits_of_a_dataset_have_their_names_and_dates(tmp_path: Path) -> None:
    splits = load_dataset("hls_burn_scars", make_burn_scars(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    rows = embed(tiny_model(), splits, tmp_path / "chips.parquet")
    assert [(row["split"], row["id"]) for row in rows] == [
        (name, one) for name in splits for one in splits[name]["id"]
    ]
    assert [row["dates"] for row in rows] == [[one] for name in splits for one in splits[name]["date"]]
    single = embed(tiny_model(), splits["train"], tmp_path / "train.parquet")
    assert "split" not in single[0]
    assert single[0]["embedding"] == pytest.approx(rows[0]["embedding"], abs=1e-6)
    streamed = embed(tiny_model(), splits["train"].to_iterable_dataset(), tmp_path / "streamed.parquet")
    assert streamed == single


def test_a_model_that_takes_dates_and_places_is_given_those_of_each_chip(tmp_path: Path) -> None:
    model = tiny_model(coords_encoding=["time", "location"])
    dated = write_scene(tmp_path / "HLS.S30.T10SEH.2022158T184919.v2.0.tif", scene_pixels(32, 32))
    unknown = write_scene(tmp_path / "unknown.tif", scene_pixels(32, 32), crs=None)
    rows = embed(model, [dated, unknown], tmp_path / "chips.parquet")
    pixel_values = tiny_processor()([GeoTiffRaster(dated)], return_tensors="pt")["pixel_values"]
    coordinates = (torch.tensor([[[2022.0, 157.0]]]), torch.tensor([[rows[0]["latitude"], rows[0]["longitude"]]]))
    with torch.no_grad():
        expected = model.prithvi(pixel_values, *coordinates).last_hidden_state[0, 1:].mean(dim=0)
        without = model.prithvi(pixel_values).last_hidden_state[0, 1:].mean(dim=0)
    np.testing.assert_allclose(rows[0]["embedding"], expected, atol=1e-4)
    np.testing.assert_allclose(rows[1]["embedding"], without, atol=1e-5)
    assert not np.allclose(expected, without, atol=1e-2)


def test_rows_come_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prithvi_hf.scenes.embed_chips._ROWS_IN_GROUP", 2)
    file = write_scene(tmp_path / "a.tif", scene_pixels(16, 16))
    rows = embed(tiny_model(), [file] * 5, tmp_path / "chips.parquet", batch_size=1)
    assert pq.ParquetFile(tmp_path / "chips.parquet").num_row_groups == 3
    assert {row["id"] for row in rows} == {str(file)}  # names that are not distinct are paths


def test_chips_that_cannot_be_used_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    good = write_scene(tmp_path / "good.tif")
    bad = [cut_off(write_scene(tmp_path / "cut.tif"), 0.5), write_scene(tmp_path / "bands.tif", scene_pixels(bands=4))]
    with pytest.raises(ValueError, match=r"(?s)2 of 3 chips cannot be used.*cut\.tif.*bands\.tif"):
        embed(tiny_model(), [bad[0], good, bad[1]], tmp_path / "chips.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bands.tif", "cut.tif", "good.tif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling: expected one of mean, cls"),
        ({"layer": -2}, "layer: expected one of the model's 1 layers"),
        ({"batch_size": 0}, "batch_size is a number of chips"),
        ({"chips": []}, "at least one chip"),
        ({"overwrite": False}, "exists already"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    output = tmp_path / "chips.parquet"
    output.write_bytes(b"kept")
    options = {"chips": [write_scene(tmp_path / "a.tif")], **options}
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(tiny_model(), output=output, **options)
    assert output.read_bytes() == b"kept"


def test_a_chip_is_never_replaced(tmp_path: Path) -> None:
    chips = [write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif")]
    before = chips[1].read_bytes()
    with pytest.raises(ValueError, match="also an input"):
        embed(tiny_model(), chips, chips[1])
    assert chips[1].read_bytes() == before


def test_values_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.prithvi.layernorm.bias, torch.nan)
    with pytest.raises(ValueError, match="a: the model gives values that are not finite"):
        embed(model, [write_scene(tmp_path / "a.tif")], tmp_path / "chips.parquet")
