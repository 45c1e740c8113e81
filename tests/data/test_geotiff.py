"""The GeoTiff feature: the protocol of `datasets`, and where it has to work."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, Features, IterableDataset, List, Value, concatenate_datasets, load_from_disk
from datasets.table import embed_table_storage
from torch.utils.data import DataLoader

from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from tests.raster_factory import cut_off, reflectance, write_chip


@pytest.fixture
def paths(tmp_path):
    return [str(write_chip(tmp_path / f"chip_{seed}.tif", size=8, seed=seed)) for seed in range(4)]


@pytest.fixture
def dataset(paths):
    return Dataset.from_dict({"image": paths}).cast_column("image", GeoTiff())


def read_row(row):
    """Top level, so that worker processes of every start method can import it."""
    return torch.from_numpy(row[0]["image"].read(bands=[1])).sum()


# ----------------------------------------------------------------- encode and decode


def test_encodes_every_accepted_kind(paths, tmp_path):
    feature, content = GeoTiff(), Path(paths[0]).read_bytes()
    assert feature.encode_example(paths[0]) == {"path": paths[0], "bytes": None}
    assert feature.encode_example(tmp_path / "chip_0.tif") == {"path": paths[0], "bytes": None}
    assert feature.encode_example(content) == {"path": None, "bytes": content}
    assert feature.encode_example(bytearray(content)) == {"path": None, "bytes": content}
    assert feature.encode_example({"path": paths[0], "bytes": content}) == {"path": paths[0], "bytes": None}
    assert feature.encode_example({"path": "gone.tif", "bytes": content}) == {"path": "gone.tif", "bytes": content}
    assert feature.encode_example(GeoTiffRaster(paths[0])) == {"path": paths[0], "bytes": None}
    assert feature.encode_example(GeoTiffRaster(content=content)) == {"path": None, "bytes": content}


@pytest.mark.parametrize("value", [np.zeros((1, 2, 2)), {"path": None, "bytes": None}, 7])
def test_refuses_other_kinds(value):
    with pytest.raises(ValueError, match="expected to be a path"):
        GeoTiff().encode_example(value)


def test_refuses_a_raster_narrower_than_its_file(paths):
    with pytest.raises(ValueError, match=r"chip_0\.tif.*narrowed"):
        GeoTiff().encode_example(GeoTiffRaster(paths[0]).select(window=(0, 0, 2, 2)))
    assert GeoTiff(bands=[2]).encode_example(GeoTiffRaster(paths[0]).select([2]))["path"] == paths[0]


def test_decoding_is_lazy_and_idempotent(paths):
    feature = GeoTiff(bands=[3, 1])
    raster = feature.decode_example({"path": paths[1], "bytes": None})
    assert isinstance(raster, GeoTiffRaster)
    assert raster.descriptions == ("NIR_NARROW", "GREEN")
    assert feature.decode_example(raster) is raster
    assert feature.decode_example(paths[1]).path == paths[1]
    named = GeoTiff().decode_example({"path": "chip.tif", "bytes": Path(paths[1]).read_bytes()})
    assert (named.name, named.path) == ("chip.tif", None)
    np.testing.assert_array_equal(named.read(), reflectance(6, 8, seed=1))


def test_flatten():
    assert GeoTiff().flatten() == GeoTiff()
    assert GeoTiff(decode=False).flatten() == {"bytes": Value("binary"), "path": Value("string")}


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary"])
def test_casts_flat_storage(kind):
    values = ["a.tif", None] if "string" in kind else [b"II*", None]
    storage = GeoTiff().cast_storage(pa.array(values, getattr(pa, kind)()))
    assert storage.type == GeoTiff.pa_type
    part, other = ("path", "bytes") if "string" in kind else ("bytes", "path")
    assert storage.to_pylist() == [{part: values[0], other: None}, None]


@pytest.mark.parametrize("row", [{"path": "a.tif"}, {"bytes": b"II*"}, {"path": "a.tif", "bytes": b"II*"}])
def test_casts_structs(row):
    storage = GeoTiff().cast_storage(pa.array([row, None]))
    assert storage.type == GeoTiff.pa_type
    assert storage.to_pylist() == [{"bytes": None, "path": None, **row}, None]


def test_casts_large_structs_and_nulls():
    large = pa.struct({"path": pa.large_string(), "bytes": pa.large_binary()})
    assert GeoTiff().cast_storage(pa.array([{"path": "a", "bytes": b"b"}], large)).to_pylist() == [
        {"bytes": b"b", "path": "a"}
    ]
    assert GeoTiff().cast_storage(pa.nulls(2)).to_pylist() == [None, None]


def test_casting_pixels_explains_the_map_trap():
    with pytest.raises(TypeError, match="with_transform"):
        GeoTiff().cast_storage(pa.array([[[1, 2]]]))


# ----------------------------------------------------------------- where it has to work


def test_dataset_rows_batches_and_formats(dataset):
    assert isinstance(dataset[2]["image"], GeoTiffRaster)
    assert [raster.name[-5:] for raster in dataset[:3]["image"]] == ["0.tif", "1.tif", "2.tif"]
    assert dataset.with_format("torch")[0]["image"].shape == (6, 8, 8)
    np.testing.assert_array_equal(dataset.with_format("numpy")[3]["image"], reflectance(6, 8, seed=3))
    assert dataset.cast_column("image", GeoTiff(decode=False))[0]["image"]["bytes"] is None


def test_transform_leaves_the_feature_alone(dataset):
    transformed = dataset.with_transform(lambda rows: {"mean": [raster.read().mean() for raster in rows["image"]]})
    assert transformed[1]["mean"] == pytest.approx(reflectance(6, 8, seed=1).mean())
    assert isinstance(transformed.features["image"], GeoTiff)


def test_map_without_decoding_keeps_the_feature(dataset):
    plain = dataset.cast_column("image", GeoTiff(decode=False))
    mapped = plain.map(lambda row: {"name": row["image"]["path"][-10:]}).cast_column("image", GeoTiff())
    assert mapped[0]["name"] == "chip_0.tif"
    np.testing.assert_array_equal(mapped[0]["image"].read(), reflectance(6, 8, seed=0))


def test_filter_on_decoded_rasters(dataset):
    kept = dataset.filter(lambda row: row["image"].name.endswith(("1.tif", "3.tif")))
    assert [row["image"].name[-5] for row in kept] == ["1", "3"]


def test_lists_of_frames(paths):
    features = Features({"image": List(GeoTiff(bands=[0, 1])), "id": Value("string")})
    frames = Dataset.from_dict({"image": [paths[:2], paths[2:]], "id": ["a", "b"]}, features=features)
    rasters = frames[1]["image"]
    assert [raster.shape for raster in rasters] == [(2, 8, 8)] * 2
    np.testing.assert_array_equal(rasters[1].read(), reflectance(6, 8, seed=3)[:2])


def test_streams(paths):
    rows = [{"image": path, "mask": None} for path in paths]
    features = Features({"image": GeoTiff(), "mask": GeoTiff()})
    stream = IterableDataset.from_generator(lambda: iter(rows), features=features)
    decoded = list(stream)
    assert [row["image"].name for row in decoded] == paths
    assert decoded[0]["mask"] is None


def test_iterable_from_dataset_and_cast_column(dataset, paths):
    assert [row["image"].name for row in dataset.to_iterable_dataset(num_shards=2)] == paths
    rows, features = [{"image": path} for path in paths], Features({"image": Value("string")})
    stream = IterableDataset.from_generator(lambda: iter(rows), features=features)
    assert next(iter(stream.cast_column("image", GeoTiff())))["image"].shape == (6, 8, 8)


def test_save_to_disk_is_self_contained(dataset, paths, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    for path in paths:
        cut_off(tmp_path / path, 0)
    again = load_from_disk(tmp_path / "saved")
    assert again.features == dataset.features
    np.testing.assert_array_equal(again[2]["image"].read(), reflectance(6, 8, seed=2))
    assert again[2]["image"].name == "chip_2.tif"


NAMES = {"class_names": ["no water", "water"], "class_colors": ["#d9d2bf", "#1f6fb4"]}


@pytest.fixture
def described(paths):
    """A dataset whose columns carry names of bands and classes."""
    features = Features({"image": List(GeoTiff(band_names=["BLUE", "GREEN"])), "mask": GeoTiff(**NAMES)})
    return Dataset.from_dict({"image": [paths[:2], paths[2:]], "mask": paths[:2]}, features=features)


def check_names(features):
    assert features["image"].feature.band_names == ["BLUE", "GREEN"]
    assert {name: getattr(features["mask"], name) for name in NAMES} == NAMES
    assert features["mask"].band_names is None


def test_names_survive_storing(described, tmp_path):
    check_names(described.features)
    described.save_to_disk(tmp_path / "saved")
    check_names(load_from_disk(tmp_path / "saved").features)
    described.to_parquet(tmp_path / "rows.parquet")
    check_names(Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache")).features)
    check_names(Features._from_yaml_list(described.features._to_yaml_list()))
    check_names(Features.from_dict(described.features.to_dict()))


def test_names_change_nothing_in_decoding_or_joining(described, paths, tmp_path):
    np.testing.assert_array_equal(described[1]["image"][1].read(), GeoTiffRaster(paths[3]).read())
    assert described[0]["mask"].descriptions == GeoTiffRaster(paths[0]).descriptions
    plain = Features({"image": List(GeoTiff()), "mask": GeoTiff()})
    others = Dataset.from_dict({"image": [paths[2:]], "mask": paths[2:3]}, features=plain)
    assert concatenate_datasets([described, others]).num_rows == 3
    assert GeoTiff(bands=[1], **NAMES).decode_example(paths[0]).bands == (1,)


def test_embedding_of_push_to_hub(paths):
    """`push_to_hub` embeds each shard by these two steps before it uploads."""
    features = Features({"image": GeoTiff(), "frames": List(GeoTiff())})
    dataset = Dataset.from_dict({"image": [paths[0], None], "frames": [paths[1:3], []]}, features=features)
    shard = dataset.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    stored = shard.data.to_pylist() if hasattr(shard.data, "to_pylist") else shard.data.table.to_pylist()
    assert stored[0]["image"]["path"] == "chip_0.tif"
    assert stored[0]["image"]["bytes"] == Path(paths[0]).read_bytes()
    assert [frame["path"] for frame in stored[0]["frames"]] == ["chip_1.tif", "chip_2.tif"]
    assert stored[1]["image"] is None or stored[1]["image"]["bytes"] is None
    np.testing.assert_array_equal(shard[0]["frames"][1].read(), reflectance(6, 8, seed=2))


def test_embedding_can_leave_local_files(paths):
    storage = GeoTiff().cast_storage(pa.array(paths[:1]))
    kept = GeoTiff().embed_storage(storage, local_files=False)
    assert kept.to_pylist() == [{"path": paths[0], "bytes": None}]


def test_embedding_a_missing_file_names_it(tmp_path):
    storage = GeoTiff().cast_storage(pa.array([str(tmp_path / "gone.tif")]))
    with pytest.raises(GeoTiffError, match=r"gone\.tif"):
        GeoTiff().embed_storage(storage)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers(dataset, method):
    dataset[0]["image"].read()  # a process that has used GDAL is the harder one to fork
    workers = 2 if method == "fork" else 1  # the other methods import everything anew in each worker
    loader = DataLoader(dataset, num_workers=workers, multiprocessing_context=method, collate_fn=read_row)
    sums = [int(value) for value in loader]
    assert sums == [int(reflectance(6, 8, seed=seed)[1].sum()) for seed in range(4)]


@pytest.mark.slow
def test_other_process_needs_the_registration_only(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    program = (
        "import sys, datasets\n"
        "import prithvi_hf.data.geotiff\n"
        "print(datasets.load_from_disk(sys.argv[1])[0]['image'].shape)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(6, 8, 8)"
    assert "experimental" not in done.stderr


def test_feature_pickles_and_serialises():
    features = Features({"image": GeoTiff(bands=[1, 2]), "frames": List(GeoTiff(decode=False))})
    assert Features.from_dict(features.to_dict()) == features
    assert pickle.loads(pickle.dumps(features)) == features


def test_bad_file_in_a_row_names_the_file(dataset, paths, tmp_path):
    cut_off(tmp_path / paths[1], 0.5)
    with pytest.raises(GeoTiffError, match=r"chip_1\.tif"):
        dataset[1]
