# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small models, scenes and datasets under the names that the pages use."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from geopandas import GeoDataFrame

from prithvi_hf import convert_checkpoint
from prithvi_hf.outputs.cog import write_class_map
from prithvi_hf.rasters.warping import Grid
from tests.checkpoint_factory import masked_autoencoder
from tests.docs.pages import ROOT
from tests.finetune_factory import make_chips
from tests.granule_factory import write_hls_granule
from tests.pretrain_factory import make_scenes, save_autoencoder
from tests.raster_factory import (
    class_mask,
    hls_layout,
    make_biomass,
    make_burn_scars,
    make_land_cover,
    reflectance,
    write_raster,
)
from tests.scene_factory import tiny_model, tiny_processor, write_scene
from tests.vector_factory import make_stars, paint, utm_grid, write_features


FLOOD_CLASSES = {0: "no water", 1: "water"}
GRANULES = (
    ("S30", (2022, 6, 7), "HLS.S30.T10SEH.2022158T184919.v2.0"),
    ("L30", (2022, 7, 10), "HLS.L30.T10SEH.2022191T184331.v2.0"),
    ("S30", (2022, 8, 6), "HLS.S30.T10SEH.2022218T184921.v2.0"),
)


def save_tiny_model(folder: Path, num_frames: int = 1) -> Path:
    """A model that tells water from land, with its image processor."""
    model = tiny_model(num_frames)
    model.config.id2label, model.config.label2id = FLOOD_CLASSES, {name: i for i, name in FLOOD_CLASSES.items()}
    two = type(model)(model.config).eval()
    two.save_pretrained(folder)
    tiny_processor(num_frames, ignore_values=[-1]).save_pretrained(folder)
    return folder


def make_stand_ins(root: Path) -> Path:
    """Everything that a page may name before it has made it."""
    root.mkdir(parents=True, exist_ok=True)
    save_tiny_model(root / "floods")
    save_tiny_model(root / "irrigation", num_frames=3)
    for copy in ("quickstart/model", "OUT"):
        shutil.copytree(root / "floods", root / copy)
    torch.save(masked_autoencoder(layers=1), root / "Prithvi_EO_V1_100M.pt")
    convert_checkpoint(root / "Prithvi_EO_V1_100M.pt", root / "prithvi-100m", num_attention_heads=2)
    shutil.copytree(root / "prithvi-100m", root / "prithvi-300m-tl")

    (root / "quickstart" / "data").mkdir()
    (root / "tiles").mkdir()
    scenes = ("scene", "tile", "mosaic", "june", "july", "august", "quickstart/data/scene", "tiles/a", "tiles/b")
    for name in scenes:
        write_scene(root / f"{name}.tif")
    for sensor, day, name in GRANULES:
        write_hls_granule(root / "granules", sensor, day, tile="10SEH").rename(root / name)
        shutil.copytree(root / name, root / "summer" / "granules" / name)
    (root / "granules").rmdir()
    (root / "scenes.txt").write_text("tile.tif\nmosaic.tif\n")
    (root / "scenes.csv").write_text("name,frame_1\nfirst,tile.tif\nsecond,mosaic.tif\n")
    item = {"type": "Feature", "id": "tile", "properties": {"datetime": "2022-06-01T10:06:01Z"}}
    item["assets"] = {"data": {"href": "tile.tif", "type": "image/tiff; application=geotiff"}}
    (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))

    # A page of the metric names its folder as it is in the repository.
    shutil.copytree(ROOT / "prithvi_hf" / "metrics", root / "prithvi_hf" / "metrics")
    make_chips(root / "DIR")
    make_burn_scars(root / "burns_data")
    make_own_chips(root / "my_fires")
    make_biomass(root / "my_plots", {"train": 2, "validation": 1, "test": 1})
    make_land_cover(root / "my_covers", {"train": 3, "validation": 3, "test": 3})
    make_scenes(root / "my_scenes", names=("a", "b"))
    make_labelled_scene(root / "county.tif", root / "fields.gpkg")
    for seed, year in enumerate((2021, 2024)):
        classes = class_mask((0, 1, 255), 40, seed)
        write_class_map(root / f"{year}.tif", classes, id2label=FLOOD_CLASSES, **utm_place(utm_grid(40, 40)))
    save_autoencoder(root / "prithvi-mae")
    return root


def make_labelled_scene(scene: Path, labels: Path, side: int = 470) -> None:
    """A scene in which each crop is bright in two bands of its own, and its fields as polygons in another CRS."""
    grid, fields = make_fields(side)
    crops = paint(fields, grid, {"barley": 1, "grass": 2, "wheat": 3}, fill=0)
    noise = np.random.default_rng(0).integers(0, 40, (6, *grid.size))
    own = np.stack([crops == 1 + band % 3 for band in range(6)])
    pixels = 600 + 2000 * own + noise
    write_scene(scene, pixels.astype(np.int16), **utm_place(grid))
    write_features(labels, fields.to_crs(4326))


def make_fields(side: int = 470) -> tuple[Grid, GeoDataFrame]:
    """Small fields of three crops, and the grid of the scene that they are in."""
    grid = utm_grid(side, side)
    return grid, make_stars(grid, 500, ["wheat", "barley", "grass"], reach=(0.02, 0.06))


def utm_place(grid: Grid) -> dict:
    """CRS and transform of a grid, as writers take them."""
    return {"crs": grid.crs, "transform": grid.transform}


def make_own_chips(root: Path) -> Path:
    """Fire scars as `docs/your-own-data.md` describes them: uint16, no data 0, masks of 0, 1 and 255."""
    for seed, name in enumerate(("training/a", "training/b", "training/c", "validation/d", "validation/e")):
        image = reflectance(6, (48, 40), seed).astype(np.uint16)
        mask = class_mask([0, 1, 255], 48, seed)[:, :40]
        image[:, :, :4], mask[:, :4] = 0, 255
        write_raster(root / f"{name}_refl.tif", image, **hls_layout())
        write_raster(root / f"{name}_label.tif", mask, **hls_layout())
    return root
