# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Each data set on its whole way through the commands: download, statistics, fine-tuning, figures, map."""

import json
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import rasterio
import torch
import yaml

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    load_dataset,
)
from prithvi_hf.cli.__main__ import main
from prithvi_hf.training.recipe import parse_arguments, read_recipe
from tests.checkpoint_factory import REDUCED, convert, convert_golden, masked_autoencoder
from tests.finetune_factory import (
    HEADS,
    OFFICIAL,
    QUICK,
    ROOT,
    SIZES,
    environment,
    finetune,
    finish,
    flags,
    read_pixels,
    replace_pixels,
    start,
)
from tests.hub_server import HubServer
from tests.raster_factory import (
    CROP_CHIPS,
    class_mask,
    hls_layout,
    hub_files,
    make_crops,
    reflectance,
    write_mask,
    write_raster,
)


FIGURES = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1", "per_category_iou", "per_category_f1")


@dataclass
class Trained:
    """A data set of the official layout, and what fine-tuning with its recipe left.

    Attributes:
        name: the data set and its recipe.
        data: a copy of its files.
        cache: tables and downloads.
        output: the run's output folder.
        given: `data_dir`, or nothing where the files were downloaded.
    """

    name: str
    data: Path
    cache: Path
    output: Path
    given: dict[str, Path]

    @property
    def results(self):
        return json.loads((self.output / "all_results.json").read_text())

    def command_line(self, output, *configs, **options):
        """The recipe by its name, with a tiny model and few steps."""
        builder = {"cache_dir": str(self.cache), **options.pop("builder", {})}
        values = {**SIZES, **HEADS, **QUICK, **self.given, "dataset_options": json.dumps(builder), **options}
        values = {name: value for name, value in values.items() if value is not None}
        return flags(config=[self.name, *configs], output_dir=output, **values)

    def run(self, output, *configs, **options):
        """Fine-tunes in this process."""
        assert finetune.main(self.command_line(output, *configs, **options)) == 0
        return replace(self, output=output)

    def chips(self, split="test"):
        """Frames and mask of each chip of a split, as paths."""
        for row in load_dataset(self.name, split=split, cache_dir=str(self.cache), **self.given):
            images = row["image"] if isinstance(row["image"], list) else [row["image"]]
            yield [image.path for image in images], row["mask"].path


def make_data(name, root):
    """Small files of the official layout, in some chips of the floods the edge of the swath."""
    OFFICIAL[name].make(root, size=48)
    inside = np.arange(48) < 43
    for path in root.rglob("*_S2Hand.tif"):
        if path.name.startswith(("Ghana", "Bolivia")):
            replace_pixels(path, np.where(inside, read_pixels(path), 0))
            mask = Path(str(path).replace("S2Hand", "LabelHand"))
            replace_pixels(mask, np.where(inside, read_pixels(mask), -1))
    return root


def spread_model(name, folder):
    """A random model that predicts several classes on chips of noise, where a fresh one predicts a single one."""
    torch.manual_seed(0)
    names = read_recipe(name).data.class_names
    labels = {"id2label": dict(enumerate(names)), "label2id": {label: index for index, label in enumerate(names)}}
    model = PrithviForSemanticSegmentation(PrithviConfig(num_frames=OFFICIAL[name].frames, **SIZES, **HEADS, **labels))
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(50)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Hub on the loopback interface, which this process talks to."""
    with HubServer(tmp_path_factory.mktemp("hf_home")) as hub, pytest.MonkeyPatch.context() as monkeypatch:
        hub.redirect_this_process(monkeypatch)
        yield hub


@pytest.fixture(scope="module", params=OFFICIAL)
def trained(request, server, tmp_path_factory):
    """Each data set, downloaded without `--data_dir` where it lies on the Hub, and a model fine-tuned on it."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = make_data(name, folder / "data")
    given = {"data_dir": data} if name == "sen1floods11" else {}
    run = Trained(name, data, folder / "cache", folder / "OUT", given)
    repository, files = (None, {}) if given else hub_files(name, data)
    if files:
        server.put_files(repository, files)
    run.run(run.output, model=spread_model(name, folder / "start"))
    assert all(server.downloads(path) == 1 for path in files if path.endswith("gz"))
    assert not [path for path in run.cache.rglob("._*") if path.is_file()]
    return run


def predict(model, frames, output, *options):
    assert main(["predict", "--model", str(model), "--frames", *frames, "--output", str(output), *options]) == 0
    with rasterio.open(output) as dataset:
        return dataset.read(1)


def evaluate(model, output, *words):
    """Runs `prithvi-hf evaluate`; the figures of each split."""
    words = ["evaluate", "--model", model, "--output", output, "--device", "cpu", *words]
    assert main([str(word) for word in words]) == 0
    return {split: found["metrics"] for split, found in json.loads(Path(output).read_text())["splits"].items()}


def missing_pixels(frames):
    """Where all bands of all dates are the nodata value of the file or of the data set."""
    with rasterio.open(frames[0]) as dataset:
        values = [value for value in (dataset.nodata, -9999) if value is not None]
    return np.isin(np.concatenate([read_pixels(frame) for frame in frames]), values).all(axis=0)


def figures_by_hand(name, pairs):
    """IoU of each class and overall accuracy of (map, mask) pairs, the mask's values read by the factory's table."""
    ignored, first = OFFICIAL[name].ignored, OFFICIAL[name].first_class
    predicted, labels = (np.concatenate([pair[side].ravel() for pair in pairs]).astype(int) for side in (0, 1))
    valid = ~np.isin(labels, ignored)
    predicted, labels = predicted[valid], labels[valid] - first
    classes = range(len(read_recipe(name).data.class_names))
    either = [((predicted == index) | (labels == index)).sum() for index in classes]
    both = [((predicted == index) & (labels == index)).sum() for index in classes]
    iou = [part / whole if whole else None for part, whole in zip(both, either, strict=True)]
    return iou, (predicted == labels).mean()


# ---------------------------------------------------------------------- recipe, fine-tuning, figures, map


def test_the_folder_says_what_the_recipe_says(trained):
    recipe = read_recipe(trained.name)
    model = PrithviForSemanticSegmentation.from_pretrained(trained.output)
    processor = PrithviImageProcessor.from_pretrained(trained.output)
    assert list(model.config.id2label.values()) == recipe.data.class_names
    assert model.config.num_frames == processor.num_frames == OFFICIAL[trained.name].frames
    assert model.config.loss == recipe.model.loss
    assert model.config.class_weights == recipe.model.class_weights
    assert (processor.image_mean, processor.image_std) == (recipe.data.image_mean, recipe.data.image_std)
    card = (trained.output / "README.md").read_text()
    assert all(name in card for name in recipe.data.class_names)


def test_evaluate_gives_the_figures_of_the_run(trained, tmp_path, capsys):
    found = evaluate(trained.output, tmp_path / "all.json")
    printed = capsys.readouterr().out
    published = read_recipe(trained.name).data.published or {}
    for split in read_recipe(trained.name).data.test_splits:
        for name in FIGURES:
            assert found[split][name] == trained.results[f"{split}_{name}"]
        own = printed[printed.index(f"{split}: ") :]
        mean = 100 * found[split]["mean_iou"]
        if split in published:
            expected = published[split]["mean_iou"]
            assert re.search(rf"mean_iou +{expected:.2f} +{mean:.2f} +{mean - expected:+.2f}", own)
        else:
            assert re.search(rf"mean_iou +- +{mean:.2f} +- ", own)


def test_maps_of_the_test_chips_give_the_same_figures(trained, tmp_path):
    """Labels read by a rule of their own, and whole chips: what evaluation counts is what `predict` writes."""
    pairs = []
    for index, (frames, mask) in enumerate(trained.chips()):
        assert len(frames) == (3 if trained.name == "hls_irrigation_scenes" else 1)
        pairs.append((predict(trained.output, frames, tmp_path / f"{index}.tif", "--quiet"), read_pixels(mask)[0]))
    assert len(np.unique(np.concatenate([found[found < 255] for found, _ in pairs]))) > 1
    iou, accuracy = figures_by_hand(trained.name, pairs)
    # Chips are mapped one by one and in batches there: a pixel on the border of two classes may differ.
    assert trained.results["test_overall_accuracy"] == pytest.approx(accuracy, abs=1e-3)
    assert trained.results["test_per_category_iou"] == pytest.approx(iou, abs=1e-2)


def test_the_map_is_that_of_the_chip(trained, tmp_path):
    recipe = read_recipe(trained.name)
    frames, _ = next(trained.chips())
    found = predict(trained.output, frames, tmp_path / "map.tif", "--quiet")
    with rasterio.open(tmp_path / "map.tif") as written, rasterio.open(frames[0]) as chip:
        assert (written.crs, written.transform, written.shape) == (chip.crs, chip.transform, chip.shape)
        assert (written.count, written.dtypes[0], written.nodata) == (1, "uint8", 255)
        names = [written.tags(1)[f"class_{index}"] for index in range(len(recipe.data.class_names))]
        colors = ["#{:02x}{:02x}{:02x}".format(*written.colormap(1)[index][:3]) for index in range(len(names))]
    assert names == recipe.data.class_names
    assert colors == recipe.data.class_colors
    missing = missing_pixels(frames)
    np.testing.assert_array_equal(found == 255, missing)
    assert missing.any() == (trained.name in ("sen1floods11", "hls_burn_scars"))


def test_statistics_go_into_the_recipe(trained, tmp_path, capsys):
    stats = tmp_path / "stats.yaml"
    options = ["--dataset_options", json.dumps({"cache_dir": str(tmp_path / "cache")}), "--quiet"]
    words = ["stats", str(trained.data), "--config", trained.name, "--output", str(stats), *options]
    assert main(words) == 0, capsys.readouterr().err
    measured = yaml.safe_load(stats.read_text())
    mean, std = statistics_by_hand(trained)
    np.testing.assert_allclose(measured["image_mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(measured["image_std"], std, rtol=1e-4)
    recipe = parse_arguments(trained.command_line(tmp_path / "OUT", stats))
    assert recipe.build_image_processor().image_mean == pytest.approx(measured["image_mean"])
    assert recipe.build_model().config.class_weights == pytest.approx(measured["class_weights"])


def statistics_by_hand(trained):
    """Mean and standard deviation of each band over all dates and valid pixels of the training chips."""
    recipe, values = read_recipe(trained.name).data, [[] for _ in range(6)]
    places = recipe.band_indices or range(6)
    for frames, _ in trained.chips("train"):
        pixels = np.concatenate([read_pixels(frame).astype(np.float64) for frame in frames])
        valid = ~missing_pixels(frames)
        for date in range(OFFICIAL[trained.name].frames):
            for band, place in enumerate(places):
                values[band].append(pixels[6 * date + place][valid] * recipe.rescale_factor)
    return [np.concatenate(band).mean() for band in values], [np.concatenate(band).std() for band in values]


@pytest.mark.parametrize("trained", ["hls_burn_scars", "multi_temporal_crop"], indirect=True)
def test_an_honest_test_split(trained, tmp_path, caplog):
    options = {"builder": {"split_scheme": "three_way"}, "max_steps": 2, "save_steps": 1, "eval_steps": 1}
    run = trained.run(tmp_path / "OUT", **options)
    assert "test holds the validation chips" not in caplog.text
    card = (run.output / "README.md").read_text()
    digests = dict(re.findall(r"\| (validation|test) \| \d+ \| [\d,]+ \| `([0-9a-f]{64})` \|", card))
    assert digests["validation"] != digests["test"]
    found = evaluate(run.output, tmp_path / "all.json", "--quiet")
    assert found["test"]["per_category_iou"] == run.results["test_per_category_iou"]
    caplog.clear()
    evaluate(trained.output, tmp_path / "published.json", "--quiet")
    assert "test holds the validation chips" in caplog.text


@pytest.mark.slow
def test_as_processes(server, tmp_path):
    """The commands of the README, each a process of its own, on a data set that only the Hub has."""
    root = make_data("hls_burn_scars", tmp_path / "made")
    server.put_files(*hub_files("hls_burn_scars", root))
    output, variables = tmp_path / "OUT", {**server.env, "HF_HUB_OFFLINE": "0"}
    words = flags(config="hls_burn_scars", output_dir=output, **{**SIZES, **HEADS, **QUICK})
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--mixed_precision", "no")
    printed, status = finish(start(["finetune", *words], launcher, ("-m", "prithvi_hf.cli"), **variables))
    assert status == 0, printed
    assert "test holds the validation chips" in printed
    results = json.loads((output / "all_results.json").read_text())
    assert 0 < results["test_mean_iou"] < 1
    frame = sorted((root / "validation").glob("subsetted*_merged.tif"))[0]
    summary = command(["predict", "--model", output, "--frames", frame, "--output", tmp_path / "map.tif"], variables)
    assert "48 x 48 pixels, CRS EPSG:32610" in summary
    with rasterio.open(tmp_path / "map.tif") as written, rasterio.open(frame) as chip:
        assert (written.crs, written.transform, written.shape) == (chip.crs, chip.transform, chip.shape)


def command(words, variables):
    """Runs `prithvi-hf`; its standard output."""
    program = shutil.which("prithvi-hf", path=sysconfig.get_path("scripts"))
    assert program, "the package is not installed: pip install -e ."
    options = {"env": environment(**variables), "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([program, *map(str, words)], check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---------------------------------------------------------------------- from the published backbone


LAYERS = {"hls_burn_scars": (12, 12), "multi_temporal_crop": (6, 8)}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A random backbone of three frames, 12 layers and 12 heads in the layout of Prithvi_100M.pt, and its folder."""
    folder = tmp_path_factory.mktemp("backbone")
    tensors = masked_autoencoder(hidden=96, layers=12)
    torch.save(tensors, folder / "Prithvi_100M.pt")
    assert convert(folder / "Prithvi_100M.pt", folder / "prithvi", "--set", "num_attention_heads=12") == 0
    return tensors, folder / "prithvi"


@pytest.mark.parametrize("name", LAYERS)
def test_from_the_converted_backbone(backbone, name, tmp_path, caplog):
    tensors, folder = backbone
    data = OFFICIAL[name].make(tmp_path / "data")
    sizes = dict.fromkeys(SIZES)  # those of backbone and recipe
    # The first step of a warm-up has a millionth of the rate: the encoder is still the backbone's.
    options = {**sizes, "model": folder, "max_steps": 1, "save_steps": 1, "eval_steps": 1}
    run = Trained(name, data, tmp_path / "cache", tmp_path / "OUT", {"data_dir": data})
    run.run(run.output, **options)
    model = PrithviForSemanticSegmentation.from_pretrained(run.output)
    assert (model.config.num_hidden_layers, model.config.num_attention_heads) == LAYERS[name]
    assert (model.config.num_frames, model.config.hidden_size) == (OFFICIAL[name].frames, 96)
    assert PrithviImageProcessor.from_pretrained(run.output).frame_order == "time_major"
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(model.prithvi.layernorm.weight.data, tensors["norm.weight"], **close)
    for index, layer in enumerate(model.prithvi.layers):
        attention = layer.attention
        found = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        torch.testing.assert_close(found.data, tensors[f"blocks.{index}.attn.qkv.weight"], **close)
    assert "The weights are random" not in caplog.text
    assert run.results["test_mean_iou"] >= 0
    [frames, *_] = (frames for frames, _ in run.chips())
    assert predict(run.output, frames, tmp_path / "map.tif", "--quiet").shape == (32, 32)


# ---------------------------------------------------------------------- a published fine-tuned checkpoint


def test_the_converted_crop_checkpoint_is_measured_and_maps(golden_dir, tmp_path):
    """Figures and map are those of the original's pipeline word by word, with its mixed bands and dates."""
    _, model = convert_golden(golden_dir, tmp_path, "crop")
    assert "num_hidden_layers=2" in REDUCED["crop"]
    root = make_crops(tmp_path / "data", size=64)
    options = ["--data_dir", root, "--dataset_options", json.dumps({"cache_dir": str(tmp_path / "cache")})]
    config = ["--config", "multi_temporal_crop", "--window", 64, *options, "--quiet"]
    found = evaluate(tmp_path / "out", tmp_path / "all.json", *config)["test"]
    pairs, plain = [], []
    for chip in CROP_CHIPS["validation"]:
        image = read_pixels(root / "validation_chips" / f"{chip}_merged.tif")
        mask = read_pixels(root / "validation_chips" / f"{chip}.mask.tif")[0]
        pairs.append((original_map(model, image, mixed=True), mask))
        plain.append((original_map(model, image, mixed=False), mask))
    iou, accuracy = figures_by_hand("multi_temporal_crop", pairs)
    assert found["per_category_iou"] == pytest.approx(iou, abs=1e-3)
    assert found["overall_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert any((mixed != right).mean() > 0.1 for (mixed, _), (right, _) in zip(pairs, plain, strict=True))
    frame = str(root / "validation_chips" / f"{CROP_CHIPS['validation'][0]}_merged.tif")
    written = predict(tmp_path / "out", [frame], tmp_path / "map.tif", "--quiet")
    assert (written != pairs[0][0]).mean() < 1e-3


def original_map(model, image, mixed):
    """Normalisation of 18 channels, the original's reshape or the right one, and the model."""
    recipe = read_recipe("multi_temporal_crop").data
    mean, std = (np.array(values * 3)[:, None, None] for values in (recipe.image_mean, recipe.image_std))
    flat = ((image - mean) / std).astype(np.float32)
    stack = flat.reshape(6, 3, *image.shape[1:]) if mixed else flat.reshape(3, 6, *image.shape[1:]).swapaxes(0, 1)
    with torch.inference_mode():
        return model(torch.from_numpy(stack.copy())[None]).logits[0].argmax(0).numpy()


# ---------------------------------------------------------------------- a user's own chips


def own_recipe():
    """The recipe of the page on one's own chips."""
    page = (ROOT / "docs" / "your-own-data.md").read_text()
    return re.search(r"```yaml[^\n]*\n(.*?)```", page, flags=re.DOTALL)[1]


@pytest.fixture
def own_chips(tmp_path, monkeypatch):
    """The layout of the burn scars with other suffixes: uint16, no data 0, masks of 0, 1 and 255."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")  # the recipe names no other
    root = tmp_path / "my_fires"
    for seed, (folder, chip) in enumerate(
        [("training", "a"), ("training", "b"), ("training", "c.v2"), ("validation", "d"), ("validation", "e")]
    ):
        image = reflectance(6, (48, 40), seed).astype(np.uint16)
        mask = class_mask([0, 1, 255], 48, seed)[:, :40]
        image[:, :, :4], mask[:, :4] = 0, 255
        write_raster(root / folder / f"{chip}_refl.tif", image, **hls_layout())
        write_raster(root / folder / f"{chip}_label.tif", mask, **hls_layout())
    return root


def test_the_recipe_of_the_page_is_short():
    lines = [line for line in own_recipe().splitlines() if line.strip()]
    assert 5 < len(lines) <= 15


def test_ones_own_chips_by_the_page(own_chips, tmp_path, capsys):
    config, stats, output = (tmp_path / name for name in ("my_fires.yaml", "stats.yaml", "OUT"))
    config.write_text(own_recipe())
    assert main(["stats", str(own_chips), "--config", str(config), "--output", str(stats), "--quiet"]) == 0
    images = [read_pixels(path)[:, :, 4:] * 1e-4 for path in sorted((own_chips / "training").glob("*_refl.tif"))]
    measured = yaml.safe_load(stats.read_text())
    np.testing.assert_allclose(measured["image_mean"], np.stack(images).mean(axis=(0, 2, 3)), rtol=1e-4)
    few = {**QUICK, "max_steps": 2, "eval_steps": 1, "save_steps": 1}
    options = {"config": [config, stats], "data_dir": own_chips, "output_dir": output, **SIZES, **HEADS, **few}
    assert finetune.main(flags(**options)) == 0, capsys.readouterr().err
    results = json.loads((output / "all_results.json").read_text())
    assert 0 < results["eval_mean_iou"] < 1
    processor = PrithviImageProcessor.from_pretrained(output)
    assert (processor.rescale_factor, processor.nodata_value, processor.ignore_values) == (0.0001, 0, [255])
    assert processor.image_mean == pytest.approx(measured["image_mean"])
    assert evaluate(output, tmp_path / "all.json", "--quiet")["validation"]["mean_iou"] == results["eval_mean_iou"]
    frame = str(own_chips / "validation" / "d_refl.tif")
    found = predict(output, [frame], tmp_path / "map.tif", "--quiet")
    np.testing.assert_array_equal(found == 255, read_pixels(frame)[0] == 0)


def test_a_label_of_ones_own_that_is_no_class_is_named(own_chips, tmp_path, capsys):
    write_mask(own_chips / "training" / "b_label.tif", (48, 40), **hls_layout())  # has -1, not 255
    (tmp_path / "my_fires.yaml").write_text(own_recipe())
    options = {"config": tmp_path / "my_fires.yaml", "data_dir": own_chips, "output_dir": tmp_path / "OUT"}
    assert finetune.main(flags(**{**options, **SIZES, **HEADS, **QUICK})) == 2
    refused = capsys.readouterr().err
    assert "b_label.tif" in refused
    assert "-1" in refused
    assert not (tmp_path / "OUT").exists()
