# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Training crops through a DataLoader: from the cache and from files, against whole files as the original does."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.timing import comparison
from examples.synthetic_floods import generate_scene
from prithvi_hf import PrithviImageProcessor
from prithvi_hf.data import (
    CachedChips,
    GeoTiffRaster,
    SegmentationTransform,
    cache_chips,
    collate_chips,
    load_dataset,
)
from prithvi_hf.rasters.write_geotiff import write_geotiff


CROP, BATCH = 224, 4
STEP_SECONDS = 0.020
NODATA = -9999
IN_WORKER = "cached, normalised in the worker"
Batch = dict[str, torch.Tensor]
# Of examples/configs/sen1floods11.yaml.
BANDS = [1, 2, 3, 8, 11, 12]
MEAN = [0.14245495, 0.13921481, 0.12434631, 0.31420089, 0.20743526, 0.12046503]
STD = [0.04036231, 0.04186983, 0.05267646, 0.0822221, 0.06834774, 0.05294205]


def make_processor() -> PrithviImageProcessor:
    """The image processor of the flood recipe."""
    return PrithviImageProcessor(
        band_indices=BANDS,
        rescale_factor=1e-4,
        image_mean=MEAN,
        image_std=STD,
        nodata_value=NODATA,
        ignore_values=[-1],
        num_labels=2,
    )


def _write_chips(folder: Path, count: int = 8) -> None:
    """Chips as Sen1Floods11's: 13 bands, int16, 512 x 512, deflate, one strip per band; masks of -1, 0 and 1."""
    layout = {"crs": "EPSG:4326", "transform": Affine.translation(-60, -14) @ Affine.scale(9e-5, -9e-5)}
    layout |= {"interleave": "band", "blockysize": 512}
    for seed in range(count):
        scene = generate_scene(512, 512, seed=seed)
        bands = scene.image[np.arange(13) % len(scene.image)]
        image = np.where(bands == NODATA, bands, bands + np.arange(13, dtype=np.int16)[:, None, None])
        write_geotiff(folder / f"chip{seed}_image.tif", image, nodata=0, **layout)
        mask = (scene.image[3] < np.median(scene.image[3])).astype(np.int16)
        mask[:20] = -1
        write_geotiff(folder / f"chip{seed}_mask.tif", mask, **layout)


def _load_chips(data_dir: Path | None, folder: Path) -> Dataset:
    """Real chips where a folder of Sen1Floods11 is given, else generated ones."""
    if data_dir is not None:
        splits = load_dataset("sen1floods11", data_dir, cache_dir=str(folder / "tables"))
        return concatenate_datasets(list(splits.values()))
    (folder / "chips").mkdir()
    _write_chips(folder / "chips")
    suffixes = {"image_suffix": "_image.tif", "mask_suffix": "_mask.tif"}
    return load_dataset("geotiff_folder", folder / "chips", "train", cache_dir=str(folder / "tables"), **suffixes)


def _whole_file(path: str) -> np.ndarray:
    """All bands of a file, through rioxarray where it is installed."""
    if find_spec("rioxarray") is None:
        return GeoTiffRaster(path).read()
    import rioxarray

    with rioxarray.open_rasterio(path) as array:
        return array.to_numpy()


class OriginalReader(torch.utils.data.Dataset):
    """The original's loading, in its order: everything is done to the whole chip, which is cropped then."""

    def __init__(self, rows: Dataset) -> None:
        self.paths = [(row["image"].path, row["mask"].path) for row in rows]
        self.mean, self.std = (torch.tensor(figures).view(-1, 1, 1) for figures in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        image_path, mask_path = self.paths[index]
        image = _whole_file(image_path).transpose(1, 2, 0).astype(np.float32)
        image = np.where(image == NODATA, 0, image)
        labels = _whole_file(mask_path)[0].astype(np.int64)
        image = image[..., BANDS] * 0.0001
        if torch.rand(()) < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        pixels = (pixels.float() - self.mean) / self.std
        row, column = (int(torch.randint(side - CROP + 1, ())) for side in labels.shape)
        window = (..., slice(row, row + CROP), slice(column, column + CROP))
        crop = np.ascontiguousarray(np.where(labels == -1, -100, labels)[window])
        return {"pixel_values": pixels[window].contiguous(), "labels": torch.from_numpy(crop)}


@dataclass
class Source:
    """A dataset in a loader without end, and what is left to do to its batches."""

    dataset: Dataset | CachedChips | OriginalReader
    finish: Callable[[Batch], object] = lambda batch: batch
    collate: Callable[[list[Batch]], Batch] | None = collate_chips

    def batches(self, workers: int, batch_size: int = BATCH) -> Iterator[Batch]:
        """Batches of a new DataLoader.

        Args:
            workers (`int`): Its worker processes.
            batch_size (`int`, defaults to 4): Chips in a batch.
        """
        sampler = RandomSampler(self.dataset, replacement=True, num_samples=10**9)
        return iter(
            DataLoader(
                self.dataset,
                batch_size=batch_size,
                sampler=sampler,
                num_workers=workers,
                collate_fn=self.collate,
            )
        )


@contextmanager
def open_sources(data_dir: Path | None) -> Iterator[dict[str, Source]]:
    """Lend the contenders by name, on chips that are decoded beforehand for those that read from the cache.

    Args:
        data_dir (`Path`, *optional*): A folder of Sen1Floods11; chips are generated without it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, processor = Path(name), make_processor()
        rows = _load_chips(data_dir, folder)
        options = {"crop_size": CROP, "augmentation": "hflip", "train": True}
        in_worker = SegmentationTransform(processor, **options)
        later = SegmentationTransform(processor, normalize=False, **options)
        cached = cache_chips(rows, processor, "train", folder, show_progress=False)

        def finish(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            return processor.normalize_file_values(batch["file_values"]), batch["labels"].long()

        yield {
            "original": Source(OriginalReader(rows), collate=None),
            "cached": Source(cached.with_transform(later), finish),
            IN_WORKER: Source(cached.with_transform(in_worker)),
            "cold": Source(rows.with_transform(later), finish),
        }


def _seconds_a_chip(sources: dict[str, Source], rounds: int) -> dict[str, list[float]]:
    """Seconds a chip of each source in each round, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            seconds[name].append(_time(source, 400 if name.startswith("cached") else 3))
    return seconds


def _time(source: Source, count: int) -> float:
    """Seconds a chip. The loader is alone: one that another turn left would go on filling its queue meanwhile."""
    batches = source.batches(workers=1)
    for _ in range(8):  # its first batches wait for its start, and a look at the units of its first crops
        source.finish(next(batches))
    start = time.perf_counter()
    for _ in range(count):
        source.finish(next(batches))
    return (time.perf_counter() - start) / (count * BATCH)


def _waiting(source: Source, steps: int) -> float:
    """Seconds that a step of a loop waits for its batch; a pause stands for the work of a GPU."""
    batches, waits = source.batches(workers=2), []
    for step in range(steps + 10):
        start = time.perf_counter()
        next(batches)
        if step >= 10:
            waits.append(time.perf_counter() - start)
        time.sleep(STEP_SECONDS)
    return statistics.mean(waits)


def run(repeats: int, data_dir: Path | None = None) -> list[dict[str, float | str]]:
    """Measure crops of 224 px of six bands with their labels, normalised, from chips of 13 bands and 512 px.

    Args:
        repeats (`int`): Rounds, in each of which every loader has its turn.
        data_dir (`Path`, *optional*): A folder of Sen1Floods11; chips are generated without it.

    Returns:
        `list[dict]`: One row a comparison: milliseconds a chip through one worker, with and without the cache; and
        milliseconds that a step of 20 ms at batch 4 waits for two workers, with the share of the loop in `share`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside a worker: more of them would spin on the core that the worker needs
    try:
        return _measure(repeats, data_dir)
    finally:
        torch.set_num_threads(threads)


def _measure(repeats: int, data_dir: Path | None) -> list[dict[str, float | str]]:
    reader = "rioxarray" if find_spec("rioxarray") else "rasterio (rioxarray is not installed)"
    with open_sources(data_dir) as sources:
        seconds = _seconds_a_chip(sources, max(5, repeats // 2))
        waits = {name: _waiting(sources[name], steps) for name, steps in (("original", 20), (IN_WORKER, 100))}
    alternative = f"the original's reader: whole files with {reader}"
    rows = []
    for name in ("cached", IN_WORKER, "cold"):
        # Ratios of neighbours in time: what slows the machine down for a while slows both.
        ratios = [theirs / own for own, theirs in zip(seconds[name], seconds["original"], strict=True)]
        medians = (statistics.median(seconds[which]) for which in (name, "original"))
        row = comparison(f"a training crop with labels through one loader worker, {name}", *medians, alternative)
        rows.append(row | {"ratio": statistics.median(ratios)})
    own, theirs = waits[IN_WORKER], waits["original"]
    share = own / (own + STEP_SECONDS)
    what = f"wait for data in a step of {1000 * STEP_SECONDS:.0f} ms, batch {BATCH}, two workers, cached"
    row = comparison(f"{what} ({share:.1%} of the loop)", own, theirs, alternative)
    return [*rows, row | {"share": share}]
