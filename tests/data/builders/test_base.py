"""What builders share: found by their modules, rows that never come from the cache of a folder that has changed."""

from functools import partial
from importlib.resources import files

import datasets
import pytest

from prithvi_hf.data import load_dataset, make_builder
from prithvi_hf.data.builders import DATASETS, find_builder, find_public_datasets
from prithvi_hf.data.builders.base import HubChipBuilder, make_features
from prithvi_hf.data.geotiff import GeoTiff
from tests.raster_factory import make_sen1floods11, write_chip, write_mask


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "sen1floods11", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return make_sen1floods11(tmp_path / "data")


@pytest.mark.parametrize("name", DATASETS)
def test_every_module_is_a_dataset_of_its_name(name):
    builder = find_builder(name)
    assert name == builder.DATASET_NAME
    assert builder.__module__ == DATASETS[name]
    if not name.startswith("geotiff_"):  # of one's own files
        assert builder.IMAGE_NAME is not None
        assert (files("prithvi_hf") / "recipes" / f"{name}.yaml").is_file()
    if issubclass(builder, HubChipBuilder):
        assert builder.REPOSITORY.count("/") == 1


def test_the_builders_are_these():
    """The helpers of this folder are not among them."""
    assert set(DATASETS) == {
        *("geotiff_classification", "geotiff_folder", "landslide4sense"),
        *("hls_burn_scars", "hls_irrigation_scenes", "multi_temporal_crop", "sen1floods11"),
    }
    with pytest.raises(ValueError, match=r"sen1floods11.*'splits'"):
        find_builder("splits")


def test_a_module_without_a_builder_is_named(monkeypatch):
    monkeypatch.setitem(DATASETS, "files", "prithvi_hf.data.builders.files")
    with pytest.raises(TypeError, match=r"builders\.files"):
        find_builder("files")


def test_public_datasets_are_known_by_the_names_of_their_images():
    names = [
        "a/Ghana_1_S2Hand.tif",
        "b/chip_1_2_merged.tif",
        "c/subsetted_x_merged.tif",
        "scene_m01_T10SFG_chip1.tif",
        "images/train/image_7.h5",
    ]
    assert set(find_public_datasets(names)) == {name for name in DATASETS if not name.startswith("geotiff_")}
    assert find_public_datasets(["Ghana_1_S2Hand.tif.aux.xml", "chip_1_merged.tif"]) == []


def test_columns():
    features = make_features(["BLUE"], ["no water", "water"])
    assert list(features) == ["image", "mask", "id", "date"]
    assert features["image"] == GeoTiff(band_names=["BLUE"])
    features = make_features(frames_are_files=True, multi_date=True)
    assert features["image"] == datasets.List(GeoTiff())
    assert features["dates"] == datasets.List(datasets.Value("string"))


def test_a_changed_folder_is_not_served_from_the_cache(root, load):
    first = load(data_dir=root, split="test")
    assert load(data_dir=root, split="test").cache_files == first.cache_files
    chips = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    write_chip(chips / "S2Hand" / "Ghana_9_S2Hand.tif")
    write_mask(chips / "LabelHand" / "Ghana_9_LabelHand.tif")
    (root / "v1.1" / "splits" / "flood_handlabeled" / "flood_test_data.csv").write_text("Ghana_9_S1Hand.tif\n")
    assert load(data_dir=root, split="test")["id"][:] == ["Ghana_9"]


def test_what_a_run_writes_among_the_chips_makes_no_new_table(root, load):
    first = load(data_dir=root, split="test")
    (root / "OUT").mkdir()
    for name in ("all_results.json", "model.safetensors", "README.md", "recipe.yaml", "report.html"):
        (root / "OUT" / name).write_text("{}")
    assert load(data_dir=root, split="test").cache_files == first.cache_files


def test_a_file_that_vanishes_is_noticed_although_cached(root, load):
    load(data_dir=root)
    (root / "v1.1" / "data" / "flood_events" / "HandLabeled" / "LabelHand" / "Ghana_5079_LabelHand.tif").unlink()
    with pytest.raises(FileNotFoundError, match="Ghana_5079"):
        load(data_dir=root)


def test_builders_of_one_folder_have_caches_of_their_own(root, tmp_path):
    options = {"cache_dir": str(tmp_path / "cache")}
    folder = make_builder("geotiff_folder", root, require_masks=False, **options)
    floods = make_builder("sen1floods11", root, **options)
    assert folder.cache_dir != floods.cache_dir
    assert make_builder("sen1floods11", root, **options).cache_dir == floods.cache_dir
    assert make_builder("sen1floods11", root / "v1.1", **options).cache_dir != floods.cache_dir
