# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Dates and places from files to the model: training, evaluation, pipeline and scenes give it the same."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from affine import Affine
from datasets import Dataset
from torch.utils.data import DataLoader

from prithvi_hf import (
    GeospatialClassificationPipeline,
    GeospatialSegmentationPipeline,
    PrithviConfig,
    PrithviForImageClassification,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
    load_dataset,
)
from prithvi_hf.cli.__main__ import main
from prithvi_hf.data import SegmentationTransform, TrainingCrops, cache_chips, collate_chips
from prithvi_hf.data.audit import audit_split
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.transforms import ClassificationTransform
from prithvi_hf.models.prithvi.coordinates_prithvi import CoordinatesWarning
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.embed_chips import embed_chips
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.training import finetune
from tests.finetune_factory import HEADS, SIZES, command_line, flags, make_chips, run
from tests.raster_factory import (
    PIXEL,
    SEN1FLOODS11_CODES,
    make_burn_scars,
    make_crops,
    make_folder,
    reflectance,
    transform_at,
    write_chip,
    write_raster,
)


BOTH = ["time", "location"]
GHANA = [[2018, 261]]  # 19 September, counted from 0
CENTER = [38.12 - 16 * PIXEL, -0.78 + 16 * PIXEL]  # of a chip of 32 pixels
BAND_INDICES = [1, 2, 3, 8, 11, 12]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flood chips of 32 pixels, as large as the model's window."""
    return make_chips(tmp_path_factory.mktemp("floods") / "data", size=32)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A backbone that takes dates and places, and its image processor."""
    folder = tmp_path_factory.mktemp("backbone") / "TL"
    torch.manual_seed(0)
    PrithviModel(PrithviConfig(num_frames=1, coords_encoding=BOTH, coords_scale_learn=True, **SIZES)).save_pretrained(
        folder
    )
    PrithviImageProcessor(first_day_of_year=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model():
    """A model of two classes to which dates and places matter."""
    torch.manual_seed(1)
    config = PrithviConfig(num_frames=1, coords_encoding=BOTH, id2label={0: "no water", 1: "water"}, **SIZES, **HEADS)
    own = PrithviForSemanticSegmentation(config).eval()
    with torch.no_grad():
        own.decode_head.classifier.weight.mul_(50)
    return own


@pytest.fixture
def processor():
    return PrithviImageProcessor(band_indices=BAND_INDICES, num_labels=2, ignore_values=[-1], nodata_value=0)


def load_chips(data, split="train", name="sen1floods11", **options):
    return load_dataset(name, data, split=split, cache_dir=str(data.parent / "cache"), **options)


@pytest.mark.parametrize("crop", [16, None])
@pytest.mark.parametrize("cached", [False, True])
def test_examples_hold_date_and_place_of_the_whole_chip(data, processor, tmp_path, crop, cached):
    chips = load_chips(data)
    chips = cache_chips(chips, processor, cache_dir=tmp_path, show_progress=False) if cached else chips
    transform = SegmentationTransform(processor, crop, "d4", train=True, normalize=crop is None, coords_encoding=BOTH)
    dataset = chips.with_transform(transform) if crop is None else TrainingCrops(chips, transform, seed=0)
    loader = DataLoader(dataset, batch_size=4, collate_fn=collate_chips, num_workers=1 if crop else 0)
    batch = next(iter(loader))
    assert batch["temporal_coords"].dtype == batch["location_coords"].dtype == torch.float32
    assert batch["temporal_coords"][0].tolist() == GHANA
    assert batch["temporal_coords"][2].isnan().all()  # no date of India is in the metadata
    assert batch["location_coords"].tolist() == [pytest.approx(CENTER)] * 4
    only_time = SegmentationTransform(processor, coords_encoding=["time"])
    assert set(chips.with_transform(only_time)[0]) == {"pixel_values", "labels", "temporal_coords"}
    assert set(chips.with_transform(SegmentationTransform(processor))[0]) == {"pixel_values", "labels"}


def test_dates_of_the_public_datasets(tmp_path):
    """Day 190 of 2018 of a burn scar; three dates in one file of crops, in the base of the image processor."""
    scars = load_chips(make_burn_scars(tmp_path / "scars"), "train", "hls_burn_scars")
    options = {"bands": ["A", "B", "C", "D", "E", "F"], "do_normalize": False, "ignore_values": [-1]}
    transform = SegmentationTransform(PrithviImageProcessor(first_day_of_year=1, **options), coords_encoding=BOTH)
    example = scars.with_transform(transform)[0]
    assert example["temporal_coords"].tolist() == [[2018, 190]]
    assert example["location_coords"].tolist() == pytest.approx([39.7456, -122.9944], abs=1e-4)
    crops = load_chips(make_crops(tmp_path / "crops"), "train", "multi_temporal_crop")
    transform = SegmentationTransform(PrithviImageProcessor(num_frames=3, **options), coords_encoding=BOTH)
    example = crops.with_transform(transform)[0]
    assert example["temporal_coords"][[0, 2]].tolist() == [[2022, 82], [2022, 257]]
    assert example["temporal_coords"].shape == (3, 2)


def test_dates_of_own_chips_come_from_a_table_or_from_names(tmp_path):
    folder = make_folder(tmp_path / "own", ["a", "b"])
    (folder / "days.csv").write_text("chip,first\na.tif,2021-06-24\n")
    options = {"mask_suffix": "_mask.tif", "image_suffix": ".tif"}
    rows = load_chips(folder, name="geotiff_folder", dates="days.csv", **options)
    assert rows["dates"][:] == [["2021-06-24"], [None]]
    transform = SegmentationTransform(PrithviImageProcessor(ignore_values=[-1]), coords_encoding=["time"])
    assert rows.with_transform(transform)[0]["temporal_coords"].tolist() == [[2021, 174]]
    assert rows.with_transform(transform)[1]["temporal_coords"].isnan().all()
    (folder / "days.csv").write_text("a,2021-06-24\nb,2021-06-24,2021-07-24\n")
    with pytest.raises(ValueError, match="found lines of 1 and 2 days for 2 chips in 2 lines"):
        load_chips(folder, name="geotiff_folder", dates="days.csv", **options)
    (folder / "days.csv").write_text("a,2021366\nb,2021-06-24\n")
    with pytest.raises(ValueError, match="expected a day such as"):
        load_chips(folder, name="geotiff_folder", dates="days.csv", **options)
    named = make_folder(tmp_path / "named", ["HLS.S30.T10SEH.2018190T185921.v2.0"])
    assert load_chips(named, name="geotiff_folder", **options)["date"][:] == ["2018-07-09"]


def test_evaluation_pipeline_and_scene_are_a_direct_call_of_the_model(data, model, processor, tmp_path):
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    counts = np.zeros((2, 2), int)
    for index, row in enumerate(load_chips(data, "test")):
        inputs = processor(row["image"], row["mask"], return_tensors="pt")
        dates = torch.tensor([GHANA if row["date"] == "2018-09-19" else [[2019, 260]]], dtype=torch.float32)
        with torch.no_grad():
            coordinates = {"temporal_coords": dates, "location_coords": torch.tensor([CENTER])}
            logits = model(inputs["pixel_values"], **coordinates).logits
            without = model(inputs["pixel_values"]).logits
        assert (logits - without).abs().max() > 0.01
        expected = logits.softmax(1)[0].numpy()
        path, when = row["image"].path, {"dates": [row["date"]]}
        pipe = GeospatialSegmentationPipeline(model=model, image_processor=processor, device="cpu")
        np.testing.assert_allclose(pipe(path, probabilities=True, **when).probabilities, expected, atol=1e-5)
        result = predict_scene(
            model, processor, path, tmp_path / f"{index}.tif", probabilities=True, show_progress=False, **when
        )
        with rasterio.open(result.outputs["probabilities"]) as written:
            np.testing.assert_allclose(written.read(), expected, atol=1e-5)
        array = row["image"].read(BAND_INDICES)
        placed = pipe(array, probabilities=True, location=CENTER, band_indices=list(range(6)), **when)
        np.testing.assert_allclose(placed.probabilities, expected, atol=1e-5)
        with pytest.warns(CoordinatesWarning, match="takes the (date|place)") as caught:
            unknown = pipe(array, probabilities=True, band_indices=list(range(6)))
        assert len(caught) == 2
        np.testing.assert_allclose(unknown.probabilities, without.softmax(1)[0].numpy(), atol=1e-5)
        labels, found = inputs["labels"].numpy(), logits.argmax(1).numpy()
        counts += [[((labels == one) & (found == other)).sum() for other in (0, 1)] for one in (0, 1)]
    options = json.dumps({"cache_dir": str(data.parent / "cache")})
    (tmp_path / "recipe.yaml").write_text(
        f"dataset: sen1floods11\ndata_dir: {data}\ndataset_options: {options}\nclass_names: [no water, water]\n"
        "test_splits: [test]\neval_window: 32\n"
    )
    words = flags(model=folder, config=tmp_path / "recipe.yaml", output=tmp_path / "all.json", device="cpu")
    assert main(["evaluate", *words]) == 0
    metrics = json.loads((tmp_path / "all.json").read_text())["splits"]["test"]["metrics"]
    assert metrics["overall_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    assert metrics["per_category_iou"] == pytest.approx((np.diag(counts) / union).tolist())


def test_tiles_of_a_scene_have_places_of_their_own(model, processor, tmp_path):
    path = write_raster(tmp_path / "scene.tif", reflectance(13, (40, 70)), descriptions=SEN1FLOODS11_CODES)
    pipe = GeospatialSegmentationPipeline(model=model, image_processor=processor, device="cpu")
    options = {"dates": ["2018-09-19"], "probabilities": True}
    in_memory = pipe(path, **options).probabilities
    streamed = pipe(path, output=tmp_path / "map.tif", **options)
    with rasterio.open(streamed.outputs["probabilities"]) as written:
        np.testing.assert_allclose(in_memory, written.read(), atol=1e-6)


def test_a_backbone_keeps_what_the_chips_give(data, backbone, tmp_path, caplog):
    out = tmp_path / "OUT"
    run(data, out, model=backbone, **dict.fromkeys(SIZES))
    config = PrithviConfig.from_pretrained(out)
    assert list(config.coords_encoding) == BOTH
    assert PrithviImageProcessor.from_pretrained(out).first_day_of_year == 0  # the recipe of the floods says so
    scales = PrithviForSemanticSegmentation.from_pretrained(out).prithvi.embeddings.coordinates
    start = PrithviModel.from_pretrained(backbone).embeddings.coordinates
    assert not torch.equal(scales.time_scale, start.time_scale)
    assert "train: 1 of 4 chips have no date" in caplog.text
    assert (out / "sample_predictions.png").is_file()


def test_what_no_chip_gives_is_left_out_and_the_message_says_so(data, backbone, tmp_path, caplog):
    undated = shutil.copytree(data, tmp_path / "undated")
    next(undated.rglob("*.geojson")).unlink()
    sizes = {**dict.fromkeys(SIZES), "do_predict": "false", "num_sample_predictions": 0}
    run(undated, tmp_path / "OUT", model=backbone, max_steps=2, **sizes)
    assert PrithviConfig.from_pretrained(tmp_path / "OUT").coords_encoding == ["location"]
    assert "not one training chip has a date: coords_encoding is ['location'], without time" in caplog.text
    run(undated, tmp_path / "OUT", model=backbone, max_steps=3, resume_from_checkpoint="true", **sizes)
    run(data, tmp_path / "none", model=backbone, max_steps=2, coords_encoding=[], **sizes)
    assert PrithviConfig.from_pretrained(tmp_path / "none").coords_encoding == []


def test_a_new_term_begins_small(data, tmp_path):
    PrithviModel(PrithviConfig(num_frames=1, **SIZES)).save_pretrained(tmp_path / "plain")
    sizes = {**dict.fromkeys(SIZES), "do_predict": "false", "num_sample_predictions": 0}
    run(data, tmp_path / "OUT", model=tmp_path / "plain", max_steps=1, coords_encoding="time", **sizes)
    scale = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "OUT").prithvi.embeddings.coordinates.time_scale
    assert scale.item() == pytest.approx(0.1, abs=0.01)


def test_a_chip_whose_axes_are_swapped_stops_the_run(backbone, tmp_path, capsys):
    """Latitude -120 is not on Earth: its file says longitude where latitude belongs."""
    data = make_chips(tmp_path / "data", size=32)
    image = next(data.rglob("Spain_2_S2Hand.tif"))
    mask = next(data.rglob("Spain_2_LabelHand.tif"))
    for path in (image, mask):
        with rasterio.open(path, "r+") as dataset:
            dataset.transform = Affine(PIXEL, 0, 39.7, 0, -PIXEL, -120.6)
    assert finetune.main(command_line(data, tmp_path / "OUT", model=backbone, **dict.fromkeys(SIZES))) == 2
    assert "Spain_2_S2Hand.tif: expected a place on Earth" in (found := capsys.readouterr().err)
    assert "Its axes look swapped" in found


def test_a_scene_across_the_antimeridian_has_the_place_of_its_middle(tmp_path):
    place = {"crs": "EPSG:4326", "transform": transform_at(180 - 10 * PIXEL, -16.5)}
    path = write_chip(tmp_path / "fiji.tif", 32, **place)
    transform = SegmentationTransform(PrithviImageProcessor(), coords_encoding=["location"])
    example = transform({"image": [GeoTiffRaster(path)], "mask": [None]})
    assert example["location_coords"][0].tolist() == pytest.approx([-16.5 - 16 * PIXEL, -180 + 6 * PIXEL])


def test_examples_of_a_batch_are_checked_when_they_are_put_together():
    example = {"pixel_values": torch.zeros(6, 1, 8, 8), "temporal_coords": torch.tensor([[2021.0, 366]])}
    with pytest.raises(ValueError, match="found 366"):
        collate_chips([example, example])
    with pytest.raises(ValueError, match="Write NaN where a date or place is not known"):
        collate_chips([example, {"pixel_values": example["pixel_values"]}])


def test_the_check_of_the_data_counts_what_is_unknown(tmp_path):
    """Of four chips of three dates, one lacks a date, one has them in another order, and one has no CRS."""
    days = ["2022-03-24", "2022-06-01", "2022-09-15"]
    rows = {"image": [], "mask": [], "id": list("abcd"), "dates": [days, [None, *days[1:]], days[::-1], days]}
    for name in rows["id"]:
        place = {"crs": None} if name == "d" else {}
        rows["image"].append(str(write_raster(tmp_path / f"{name}.tif", reflectance(18), **place)))
        rows["mask"].append(str(write_raster(tmp_path / f"{name}_mask.tif", np.ones((32, 32), np.uint8), **place)))
    chips = Dataset.from_dict(rows).cast_column("image", GeoTiff()).cast_column("mask", GeoTiff())
    processor = PrithviImageProcessor(num_frames=3)
    problems = audit_split(chips, processor, 2, "train", False, coords_encoding=BOTH).coordinate_problems
    assert {text[:24]: count for text, count in problems.items()} == {
        "have no date, or not one": 1,
        "have no CRS and so no pl": 1,
        "have dates that are not ": 1,
    }
    assert audit_split(chips, processor, 2, "train", False).coordinate_problems == {}
    wrong = chips.remove_columns("dates").add_column("dates", [days[:2]] * 4)
    with pytest.raises(ValueError, match=r"4 of 4 chips.*\n- .*a.tif: expected a date for each of 3 frame"):
        audit_split(wrong, processor, 2, "train", False, coords_encoding=BOTH)


def test_labelled_chips_and_embeddings_take_dates_and_places(tmp_path):
    torch.manual_seed(0)
    config = PrithviConfig(num_frames=1, coords_encoding=BOTH, id2label={0: "a", 1: "b"}, **SIZES)
    model = PrithviForImageClassification(config).eval()
    chip = write_chip(tmp_path / "HLS.S30.T30SXH.2018190T105031.v2.0.tif", 32)
    rows = {"image": [GeoTiffRaster(chip)], "label": ["a"], "date": ["2018-07-09"], "id": ["chip"]}
    processor = PrithviImageProcessor()
    options = {"class_names": ["a", "b"], "coords_encoding": BOTH}
    example = ClassificationTransform(processor, **options)(rows)
    crop = ClassificationTransform(processor, crop_size=16, train=True, **options)(rows)
    for name, expected in (("temporal_coords", [[2018, 189]]), ("location_coords", pytest.approx(CENTER))):
        assert example[name][0].tolist() == crop[name][0].tolist() == expected
    with torch.no_grad():
        coordinates = {name: example[name][0][None] for name in ("temporal_coords", "location_coords")}
        scores = model(example["pixel_values"][0][None], **coordinates).logits.softmax(1)[0].tolist()
        tokens = model.prithvi(example["pixel_values"][0][None], **coordinates).last_hidden_state
    pipe = GeospatialClassificationPipeline(model=model, image_processor=processor, device="cpu")
    both = pipe([str(chip), str(chip)], batch_size=2)
    assert [{one["label"]: one["score"] for one in found} for found in both] == [
        pytest.approx(dict(zip("ab", scores, strict=True)))
    ] * 2
    embed_chips(model, processor, [chip], tmp_path / "chips.parquet", pooling="cls", show_progress=False)
    [embedding] = pq.read_table(tmp_path / "chips.parquet")["embedding"].to_pylist()
    np.testing.assert_allclose(embedding, tokens[0, 0], atol=1e-5)
