# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf reconstruct`."""

import pytest
import rasterio

from prithvi_hf import PrithviImageProcessor, PrithviModel
from prithvi_hf.cli.__main__ import main
from tests.pretrain_factory import save_autoencoder, write_smooth_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruct")
    save_autoencoder(folder / "mae", num_frames=2)
    PrithviModel.from_pretrained(folder / "mae").save_pretrained(folder / "backbone")
    PrithviImageProcessor(num_frames=2).save_pretrained(folder / "backbone")
    for name, seed in (("june", 0), ("july", 1)):
        write_smooth_scene(folder / f"{name}.tif", seed=seed)
    write_smooth_scene(folder / "other.tif", descriptions=("BLUE", "GREEN", "RED", "B6", "B11", "B12"))
    return folder


def reconstruct(folder, output, *words, model="mae", frames=("june", "july")):
    paths = [str(folder / f"{name}.tif") for name in frames]
    return main(
        ["reconstruct", "--model", str(folder / model), "--frames", *paths, "--output", str(output), *map(str, words)]
    )


def test_it_draws_a_picture_and_writes_the_pixels(folder, tmp_path, capsys):
    words = ("--geotiff", tmp_path / "a.tif", "--window", 48, "--offset", 3, 4, "--mask_ratio", 0.5, "--seed", 2)
    assert reconstruct(folder, tmp_path / "a.png", *words) == 0
    assert "50% of 2 x 48 x 48 pixels hidden" in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert (dataset.count, dataset.height, dataset.width) == (12, 48, 48)
        assert dataset.descriptions[6] == "BLUE date 2"


@pytest.mark.parametrize(
    ("options", "words", "message"),
    [
        ({"model": "backbone"}, (), "no decoder that predicts pixels"),
        ({"frames": ("june",)}, (), "expected 2 frames"),
        ({"frames": ("june", "other")}, (), "NIR_NARROW"),
        ({}, ("--mask_ratio", 1), "mask_ratio from 0 to below 1"),
        ({}, ("--offset", 80, 0), "inside 96 x 110 pixels"),
        ({}, ("--window", 1, 2, 3), "Expected --window"),
        ({}, ("--geotiff", "a.png"), "ends in .tif or .tiff"),
        ({}, ("--seed", -1), "--seed of at least 0"),
        ({"model": "nowhere"}, (), "no model folder"),
    ],
)
def test_what_cannot_be_is_one_message_and_nothing_written(options, words, message, folder, tmp_path, capsys):
    assert reconstruct(folder, tmp_path / "a.png", *words, **options) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_a_frame_is_never_replaced(folder, tmp_path, capsys):
    frame = folder / "june.tif"
    before = frame.read_bytes()
    assert reconstruct(folder, tmp_path / "a.png", "--geotiff", frame) == 2
    assert "is also an input" in capsys.readouterr().err
    assert frame.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_an_unknown_date_is_a_warning(folder, tmp_path, capsys):
    save_autoencoder(folder / "dated", num_frames=2, coords_encoding=["time"])
    assert reconstruct(folder, tmp_path / "a.png", model="dated") == 0
    assert "takes the date, which is not known of every frame" in capsys.readouterr().err
    assert reconstruct(folder, tmp_path / "a.png", "--dates", "2020-06-01", "2020-07-01", model="dated") == 0
    assert "not known" not in capsys.readouterr().err
