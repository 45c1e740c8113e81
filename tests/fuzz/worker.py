"""The process that opens damaged files: numbers of mutants come in, verdicts go out, one JSON per line.

A verdict is one word per target. "identical" and "different" compare with what the sound file gives, "error" is an
error of the package that names the file; what else an exception can be is a finding.
"""

import argparse
import faulthandler
import json
import os
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, Value
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from prithvi_hf import predict_scene
from prithvi_hf.data.audit import audit_split
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.fuzz.mutants import Seed, make_mutant, make_seeds
from tests.raster_factory import labels, write_raster
from tests.scene_factory import tiny_model, tiny_processor


TARGETS = ("decode", "audit", "predict")
_WINDOWS = ((0, 0, 16, 16), (13, 7, 20, 30))
_FEATURES = Features({"id": Value("string"), "image": GeoTiff(), "mask": GeoTiff()})


class InconsistentError(Exception):
    """A window differs from the same part of the whole."""


def seed_targets(seed: Seed) -> tuple[str, ...]:
    """Name what a file is opened for: no map is made of a mask."""
    return TARGETS[:2] if seed.is_mask else TARGETS


class Judge:
    """Opens files by every target, and compares what comes with what the sound file gives."""

    def __init__(self, folder: Path, campaign: int) -> None:
        self.folder, self.campaign, self.seeds = folder, campaign, make_seeds(folder)
        self.path = folder / "mutant.tif"
        for side in {seed.side for seed in self.seeds}:
            write_raster(folder / f"mask_{side}.tif", np.abs(labels(side)).astype(np.uint8), crs=None)
        for side in {seed.side for seed in self.seeds}:
            write_raster(folder / f"mask_{side}.tif", np.abs(labels(side)).astype(np.uint8), crs=None)
        self.model, self.processor = tiny_model(), tiny_processor()
        self.sound, self.chips = {}, {}
        for number, seed in enumerate(self.seeds):
            image, mask = (
                str(folder / f"seed_{0 if seed.is_mask else number:02d}.tif"),
                str(folder / f"mask_{seed.side}.tif"),
            )
            mutant = [image, str(self.path)] if seed.is_mask else [str(self.path), mask]
            rows = {"id": ["mutant", "sound"], "image": [mutant[0], image], "mask": [mutant[1], mask]}
            self.chips[seed.name] = Dataset.from_dict(rows, features=_FEATURES)
            self.path.write_bytes(seed.content)
            self.sound[number] = {target: self.open(seed, target) for target in seed_targets(seed)}

    def open(self, seed: Seed, target: str) -> list[object]:
        """Take the file through one target; what is returned is compared."""
        if target == "decode":
            return self._decode(seed)
        if target == "audit":
            return self._audit(seed)
        return self._predict()

    def _decode(self, seed: Seed) -> list[object]:
        """Whole and by windows: pixels, and what the file's own mask leaves out."""
        raster = GeoTiffRaster(self.path)
        whole = raster.read()
        for window in _WINDOWS:
            row, column, height, width = window
            if row + height <= raster.shape[1] and column + width <= raster.shape[2]:
                part = whole[:, row : row + height, column : column + width]
                is_same = np.array_equal(raster.read(window=window), part, equal_nan=part.dtype.kind == "f")
                # What libjpeg makes of damage depends on the blocks that it has decoded before.
                if not is_same and seed.codec != "jpeg":
                    raise InconsistentError(f"{self.path}: {window} is not as in the whole")
        mask = raster.read_nodata_mask()
        return [str(whole.dtype), whole.shape, whole.tobytes(), None if mask is None else mask.tobytes()]

    def _audit(self, seed: Seed) -> list[object]:
        """As the image or the mask of a chip, beside a sound one: not all of a split may be without data."""
        audit = audit_split(self.chips[seed.name], self.processor, 2, "fuzz", show_progress=False)
        return [audit.class_pixels, audit.ignored_pixels, audit.nodata_pixels, sorted(audit.sizes.items())]

    def _predict(self) -> list[object]:
        result = predict_scene(
            self.model,
            self.processor,
            self.path,
            self.folder / "map.tif",
            overlap=0,
            show_progress=False,
            resume=False,
        )
        return [str(result.crs), tuple(result.transform or ()), result.mask.shape, result.mask.tobytes()]

    def judge(self, number: int) -> dict[str, object]:
        """Say what becomes of one mutant, target by target."""
        mutant = make_mutant(self.seeds, self.campaign, number)
        self.path.write_bytes(mutant.content)
        verdicts, texts = {}, {}
        for target in seed_targets(mutant.seed):
            (self.folder / "target").write_text(target)  # for whoever finds this process dead
            try:
                found = self.open(mutant.seed, target)
                is_same = found == self.sound[number % len(self.seeds)][target]
                # An audit counts labels and nodata, and has no word on other pixels.
                is_same &= target != "audit" or verdicts["decode"] != "different"
                verdicts[target] = "identical" if is_same else "different"
            except Exception as error:
                is_bare = isinstance(error, RasterioError | CPLE_BaseError)  # some of which are an OSError too
                is_own = isinstance(error, ValueError | OSError) and not is_bare
                is_named = str(self.path) in str(error)
                verdicts[target] = "error" if is_own and is_named else "unnamed" if is_own else type(error).__name__
                texts[target] = f"{type(error).__name__}: {error}"
        about = {"seed": mutant.seed.name, "codec": mutant.seed.codec, "place": mutant.place}
        return {"number": number, **about, "verdicts": verdicts, "texts": texts}


def main() -> None:
    """Read numbers until there are no more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("campaign", type=int)
    parser.add_argument("--memory_bytes", type=int, default=3 * 2**30, help="beyond what libraries take")
    options = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    # Whatever a library prints goes to the log, not between the verdicts.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(content: dict) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    judge = Judge(options.folder, options.campaign)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + options.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    say({"ready": True})
    for line in sys.stdin:
        say(judge.judge(int(line)))


if __name__ == "__main__":
    main()
