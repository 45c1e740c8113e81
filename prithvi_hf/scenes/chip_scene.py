# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`chip_scene`: from one scene and its labels to a dataset of chips that `geotiff_folder` reads.

A chip and its mask do not depend on the split that they come into: splits are lists of ids, made when all chips are
there. What is finished is noted in a journal with the digests of its files, so that a run that was interrupted
continues, writes damaged chips again, and ends with the same bytes.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from prithvi_hf.data.chip_layout import SPLITS, ChipOptions, split_chips
from prithvi_hf.data.chips import hash_file, run_in_threads
from prithvi_hf.data.mask_labels import MaskLabels, is_mask
from prithvi_hf.data.statistics import BandMoments
from prithvi_hf.data.vector_labels import LabelClasses, LabelOptions, VectorLabels, open_vector_labels
from prithvi_hf.disk import check_writable_folder, explain_disk_full
from prithvi_hf.models.prithvi.pixel_values_prithvi import find_nodata, has_alpha, read_frames
from prithvi_hf.outputs.cog import NODATA_CLASS, complete_or_absent, write_class_map
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.rasters.raster import ArrayRaster, Raster, union
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.chip_picture import ChipPicture, draw_chips
from prithvi_hf.scenes.scene import Scene, open_scene


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

JOURNAL, RECIPE, REPORT, PICTURE, DATES = "chips.jsonl", "recipe.yaml", "report.json", "chips.png", "dates.csv"
IMAGES, MASKS = "images", "masks"
WRITTEN, UNLABELLED, NODATA = "written", "unlabelled", "nodata"
_STRIP_BYTES = 2**30  # of the rows of a frame whose blocks are much wider than a chip
_CROP = 224
_TRAINING = {
    **{"max_steps": 2000, "learning_rate": 1.0e-4, "warmup_steps": 100},
    **{"eval_strategy": "steps", "eval_steps": 500, "load_best_model_at_end": True},
}


def chip_scene(
    frames: Any,
    labels: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    image_processor: "PrithviImageProcessor | None" = None,
    chips: ChipOptions | None = None,
    label_options: LabelOptions | None = None,
    show_progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Cut a scene and its labels into chips with splits that share no pixel, ready for fine-tuning.

    The folder gets `images` and `masks` as GeoTIFFs with the bands, nodata, scale, CRS and place of the scene, a list
    of ids for each split, the days of the frames where they are known, a `recipe.yaml` with classes, bands and
    statistics of the training chips, a report and a picture. An interrupted run continues when it is called again
    alike: finished chips are not written again, damaged ones are, and the files in the end are the same.

    Args:
        frames: one scene, as [`open_scene`] takes it: a GeoTIFF, the GeoTIFFs of all its dates, folders of granules.
        labels: a vector file (see [`rasterize_labels`]) or a mask.
        output_dir: a folder that is new, empty, or holds an unfinished run of the same call.
        image_processor: says which bands are needed, how many dates, and in which units; None is that of Prithvi's six
            bands with as many dates as there are frames.
        chips: how the scene is divided.
        label_options: what of the labels is of which class.
        show_progress: whether to show progress bars.
        options: how frames are read, by name, see [`FrameOptions`].

    Returns:
        What `report.json` holds: "chips" by what became of them, for each split its "chips", "labelled_pixels" and
        "classes", and counts of the features of a vector file.

    Raises:
        ValueError: an option is out of its range, scene and labels do not fit together, no chip has labels, or the
            folder holds something else.
        OSError: reading or writing fails. What is finished is kept.
    """
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

    chips, label_options = chips or ChipOptions(), label_options or LabelOptions()
    opening = FrameOptions(**options)
    if image_processor is None:
        count = len(frames) if isinstance(frames, list | tuple) else 1
        image_processor = PrithviImageProcessor(num_frames=count)
    image_processor = opening.adapt(image_processor)
    scene = frames if isinstance(frames, Scene) else open_scene(frames, image_processor, opening)
    folder = Path(output_dir).expanduser()
    check_writable_folder(folder, "output_dir")
    digest = _digest_run(scene, labels, image_processor, (chips, label_options, opening.grid_mismatch))
    lines = _read_journal(folder, digest)
    remedy = "Free space and give the same command again: what is finished is kept."
    is_new = not folder.exists()
    with explain_disk_full(folder, remedy), ExitStack() as stack:
        stack.callback(_remove_empty, folder, is_new)
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        (folder / MASKS).mkdir(exist_ok=True)
        stack.enter_context(_lock(folder))
        raster: VectorLabels | MaskLabels
        if is_mask(labels):
            raster = MaskLabels(labels, scene.grid, label_options, opening.grid_mismatch)
        else:
            raster = stack.enter_context(
                open_vector_labels(labels, scene.grid, label_options, folder=folder, show_progress=show_progress)
            )
        maker = _ChipMaker(scene, image_processor, raster, chips, folder)
        lines = maker.make_all(lines, digest, show_progress)
        return _finish(maker, lines, digest, show_progress)


def _digest_run(scene: Scene, labels: str | os.PathLike, image_processor: Any, options: Any) -> str:
    """Digest all that decides the chips: scene, labels and options."""
    path = Path(labels).expanduser()
    # A shapefile is several files.
    files = sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix.lower() == ".shp" else [path]
    stats = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file()]
    content = [scene.fingerprint(), stats, image_processor.to_dict(), [str(one) for one in options]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _read_journal(folder: Path, digest: str) -> dict[str, dict[str, Any]]:
    """Read what an earlier run of the same call has finished, by chip; refuse a folder of anything else."""
    path = folder / JOURNAL
    if not path.is_file():
        names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
        if strangers := [name for name in names if not name.startswith(".") and name not in (IMAGES, MASKS)]:
            raise ValueError(
                f"{folder}: expected a new or empty folder, found {', '.join(strangers[:5])}. Choose another name."
            )
        return {}
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the line that was being written as the run ended
            continue
    if not found or not isinstance(found[0], dict) or found[0].get("run") != digest:
        raise ValueError(
            f"{folder}: expected a new or empty folder, or one that the same command began, found chips of another "
            "scene, other labels or other options. Choose another folder, or delete this one. For a dataset of "
            'several scenes, give each a folder of its own and join these, as under "Several scenes" in '
            "docs/own-labels.md."
        )
    return {line["id"]: line for line in found[1:] if isinstance(line, dict) and "id" in line}


def _lock(folder: Path) -> FileLock:
    """Make sure that no other run writes to a folder, and remove what a killed one left half-written."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder}: expected no other run, found one that writes chips there. Wait for it."
        ) from error
    for path in [*folder.glob(".prithvi-labels-*"), *folder.glob(f"{IMAGES}/.*"), *folder.glob(f"{MASKS}/.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lock


def _remove_empty(folder: Path, is_new: bool) -> None:
    """Leave nothing behind of a run that ended before its first chip."""
    if not (folder / JOURNAL).exists():
        (folder / ".lock").unlink(missing_ok=True)
        for path in (folder / IMAGES, folder / MASKS, *([folder] if is_new else [])):
            with suppress(OSError):  # there is something in it
                path.rmdir()


class _ChipMaker:
    """What makes one chip after the other."""

    def __init__(
        self,
        scene: Scene,
        image_processor: "PrithviImageProcessor",
        labels: VectorLabels | MaskLabels,
        options: ChipOptions,
        folder: Path,
    ) -> None:
        self.scene, self.image_processor, self.labels, self.folder = scene, image_processor, labels, folder
        self.options, self.size = options, options.size
        self.processor_options = image_processor.checked_options()
        # An alpha band is the mask of the others, which chips have inside.
        self.frames = [
            frame.select(range(frame.count - 1)) if has_alpha(frame.descriptions) else frame for frame in scene.frames
        ]
        name = re.sub(r"[^\w.-]+", "_", scene.name)  # lists of ids are text with commas between fields
        self.places = {
            f"{name}_{place.index[0]:04d}_{place.index[1]:04d}": place for place in options.lay_out(scene.grid.size)
        }

    @property
    def classes(self) -> LabelClasses | None:
        """The classes, None where they are numbers whose names nothing tells."""
        return self.labels.classes

    def name_files(self, chip: str) -> list[str]:
        """Name the files of a chip in the folder: those of its frames, and its mask."""
        count = len(self.frames)
        images = [f"{chip}.tif"] if count == 1 else [f"{chip}_{number}.tif" for number in range(1, count + 1)]
        return [*(f"{IMAGES}/{name}" for name in images), f"{MASKS}/{chip}.tif"]

    def make_all(
        self, lines: Mapping[str, dict[str, Any]], digest: str, show_progress: bool
    ) -> dict[str, dict[str, Any]]:
        """Make all chips but those that `lines` say are finished, and give the lines of all of them."""
        kept = {}
        for chip in self.places:
            line = lines.get(chip)
            if line is not None and self.is_whole(line):
                kept[chip] = line
        done = dict(kept)
        path = self.folder / JOURNAL
        _write_lines(path, [{"run": digest}, *kept.values()])
        try:
            with (
                open(path, "a", encoding="utf-8") as journal,
                tqdm(desc="chips", total=len(self.places), initial=len(kept), disable=not show_progress) as bar,
            ):
                for line in run_in_threads(self.plan([chip for chip in self.places if chip not in kept])):
                    done[line["id"]] = line
                    journal.write(f"{json.dumps(line)}\n")
                    journal.flush()
                    bar.update()
        except KeyboardInterrupt as interruption:
            interruption.add_note(f"{len(done)} of {len(self.places)} chips are done; the same command continues.")
            raise
        return {chip: done[chip] for chip in self.places}

    def is_whole(self, line: Mapping[str, Any]) -> bool:
        """Whether the files of a finished chip are as they were written."""
        files = line.get("files", {})
        try:
            return all(hash_file(self.folder / name) == digest for name, digest in files.items())
        except OSError:
            return False

    def plan(self, chips: Sequence[str]) -> Iterator[Callable[[], dict[str, Any]]]:
        """Give a call for each chip; frames in blocks much wider than chips are read once for each row of chips."""
        width, row, sources = self.scene.grid.width, -1, list[tuple[Raster, int]]()
        for chip in chips:
            top = self.places[chip].window[0]
            if top != row:
                row, sources = top, [(frame, 0) for frame in self.frames]
                for number, frame in enumerate(self.frames):
                    strip_bytes = frame.count * self.size * width * np.dtype(frame.dtype).itemsize
                    if 2 * self.size < frame.block_shape[1] and strip_bytes <= _STRIP_BYTES:
                        sources[number] = (_read(frame.select(window=(row, 0, self.size, width))), row)
            yield partial(self.make, chip, sources)

    def make(self, chip: str, sources: Sequence[tuple[Raster, int]]) -> dict[str, Any]:
        """Write a chip if it has labels and data enough, and say what became of it.

        `sources` are the frames, or rows of them, and the row of the scene that they begin with.
        """
        place = self.places[chip]
        line = {"id": chip, "window": list(place.window), "block": "_".join(map(str, place.block))}
        labels = self.labels.read(window=place.window)[0]
        needed = max(1, self.options.min_labelled * labels.size)
        if (labels != NODATA_CLASS).sum() < needed:
            return {**line, "status": UNLABELLED}
        row, column, height, width = place.window
        images = [_read(source.select(window=(row - top, column, height, width))) for source, top in sources]
        flags = [frame.read_excluded(place.window) for frame in self.frames]
        excluded = union([one for one in flags if one is not None])
        parts = read_frames(images, self.processor_options, chip)
        missing, nodata = find_nodata(parts, self.processor_options)
        if excluded is not None:
            nodata, labels = nodata | excluded, np.where(excluded, np.uint8(NODATA_CLASS), labels)
        pixels = np.bincount(labels[~nodata], minlength=256)[:NODATA_CLASS]
        if pixels.sum() < needed:
            return {**line, "status": NODATA}
        moments = []
        for band in range(len(self.image_processor.bands)):
            values = [
                part.values[band] if holes is None else part.values[band][~holes[band]]
                for part, holes in zip(parts, missing, strict=True)
            ]
            found = BandMoments.of(np.concatenate([one.ravel() for one in values]))
            moments.append(list(astuple(found)) if found.count else [])
        *names, mask = self.name_files(chip)
        for name, image in zip(names, images, strict=True):
            write_geotiff(
                self.folder / name,
                image.read(),
                crs=image.crs,
                transform=image.transform,
                nodata=image.nodata,
                descriptions=[None if text is None else str(text) for text in image.descriptions],
                tags=None if set(image.scales) <= {1.0} and not any(image.offsets) else (image.scales, image.offsets),
                nodata_mask=image.read_nodata_mask(),
                predictor=3 if np.dtype(image.dtype).kind == "f" else 2,
            )
        # Numbers without names are named as they are; the recipe says how many there are.
        named = self.classes or LabelClasses(tuple(map(str, range(int(pixels.nonzero()[0].max()) + 1))), {})
        write_class_map(
            self.folder / mask,
            labels,
            id2label=named.id2label,
            crs=self.scene.grid.crs,
            transform=images[0].transform,
            class_values=named.class_values,
        )
        return {
            **{**line, "status": WRITTEN, "labelled": int(pixels.sum()), "nodata": int(nodata.sum())},
            "pixels": {str(number): int(pixels[number]) for number in pixels.nonzero()[0]},
            "moments": moments,
            "files": {name: hash_file(self.folder / name) for name in (*names, mask)},
        }


def _read(raster: Raster) -> ArrayRaster:
    """Read a raster with what belongs to its pixels into memory."""
    mask = raster.read_nodata_mask()
    return ArrayRaster(
        raster.read(),
        name=raster.name,
        descriptions=raster.descriptions,
        nodata=raster.nodata,
        nodata_mask=mask if mask is not None and mask.any() else None,
        crs=raster.crs,
        transform=raster.transform,
        tags=(raster.scales, raster.offsets),
    )


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with complete_or_absent(path) as part:
        part.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _write_text(path: Path, text: str) -> None:
    with complete_or_absent(path) as part:
        part.write_text(text, encoding="utf-8")


def _finish(
    maker: _ChipMaker, lines: Mapping[str, dict[str, Any]], digest: str, show_progress: bool
) -> dict[str, Any]:
    """Divide the chips among the splits, and write lists, recipe, report and picture."""
    folder, options = maker.folder, maker.options
    written = {chip: line for chip, line in lines.items() if line["status"] == WRITTEN}
    states = {one: sum(line["status"] == one for line in lines.values()) for one in (WRITTEN, UNLABELLED, NODATA)}
    if not written:
        raise ValueError(
            f"{maker.scene.name}: expected chips with labels, found {states[UNLABELLED]} with fewer labelled pixels "
            f"than min_labelled ({options.min_labelled:g}) asks for, and {states[NODATA]} whose labelled pixels have "
            "no data. Check that labels and scene are of one place."
        )
    if maker.classes is not None:
        names = maker.classes.names
    else:
        most = max(int(number) for line in written.values() for number in line["pixels"])
        names = tuple(f"class {number}" for number in range(most + 1))
    pixels = {
        chip: [line["pixels"].get(str(number), 0) for number in range(len(names))] for chip, line in written.items()
    }
    blocks = {chip: line["block"] for chip, line in written.items()}
    splits = {"train": list(written)}
    if options.split == "spatial":
        splits = split_chips(pixels, blocks, options.fractions, options.seed)
    split_of = {chip: split for split, chips in splits.items() for chip in chips}
    for split, chips in splits.items():
        _write_text(folder / f"{split}.txt", "".join(f"{chip}\n" for chip in chips))
    dates = [None if date is None else date.date().isoformat() for date in maker.scene.dates]
    if any(dates):
        header = ",".join(["chip", *["date"] * len(dates)])
        rows = [",".join([chip, *(date or "" for date in dates)]) for chip in written]
        _write_text(folder / DATES, "\n".join([header, *rows, ""]))
    moments = [BandMoments() for _ in maker.image_processor.bands]
    for chip in splits["train"]:
        moments = [one + BandMoments(*own) for one, own in zip(moments, written[chip]["moments"], strict=True)]
    sums = {split: np.sum([pixels[chip] for chip in chips], axis=0) for split, chips in splits.items()}
    _write_text(folder / RECIPE, _write_recipe(maker, names, splits, moments, sums["train"], any(dates)))
    figures = {
        split: {
            "chips": len(chips),
            "blocks": len({blocks[chip] for chip in chips}),
            "labelled_pixels": int(sums[split].sum()),
            "classes": dict(zip(names, sums[split].tolist(), strict=True)),
        }
        for split, chips in splits.items()
    }
    report = {
        **{"scene": maker.scene.name, "files": list(maker.scene.files), "size": options.size, "chips": states},
        **{"splits": figures, "features": getattr(maker.labels, "counts", None)},
    }
    _write_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    pictures = []
    for chip, line in written.items():
        *images, mask = maker.name_files(chip)
        pictures.append(ChipPicture(line["window"], folder / images[-1], folder / mask, split_of[chip]))
    values = maker.classes.class_values if maker.classes else {}
    draw_chips(folder / PICTURE, maker.scene, maker.image_processor, (names, values), pictures, show_progress)
    ends = [{**line, **({"split": split_of[chip]} if chip in split_of else {})} for chip, line in lines.items()]
    _write_lines(folder / JOURNAL, [{"run": digest}, *ends])
    return report


def _write_recipe(
    maker: _ChipMaker,
    names: Sequence[str],
    splits: Mapping[str, Sequence[str]],
    moments: Sequence[BandMoments],
    pixels: np.ndarray,
    has_dates: bool,
) -> str:
    """Write a recipe for fine-tuning on the chips, with the statistics of those that train."""
    processor, classes = maker.image_processor, maker.classes
    dataset: dict[str, Any] = {"image_dir": IMAGES, "mask_dir": MASKS}
    if len(maker.frames) > 1:
        dataset["image_suffix"] = [f"_{number}.tif" for number in range(1, len(maker.frames) + 1)]
    dataset["splits"] = {split: f"{split}.txt" for split in SPLITS if split in splits}
    dataset |= {"dates": DATES} if has_dates else {}
    data: dict[str, Any] = {
        **{"dataset": "geotiff_folder", "dataset_options": dataset},
        "test_splits": [split for split in ("test",) if split in splits],
        **{"class_names": list(names), "ignore_values": [NODATA_CLASS], "mask_nodata_labels": True},
        "bands": list(processor.bands),
    }
    if classes is not None and classes.class_values:
        data["label_map"] = {classes.class_values.get(number, number): number for number in range(len(names))}
    if processor.num_frames > 1:
        data["num_frames"] = processor.num_frames
    given = {name: getattr(processor, name) for name in ("band_indices", "band_map", "band_names", "nodata_value")}
    if processor.do_rescale:
        given |= {name: getattr(processor, name) for name in ("rescale_factor", "rescale_offset")}
    data |= {name: value for name, value in given.items() if value is not None}
    parts = [f"# Chips of {maker.scene.name}, made by prithvi-hf chip.\n{_to_yaml(data)}"]
    if all(band.std > 0 for band in moments):
        factor, offset = (processor.rescale_factor, processor.rescale_offset) if processor.do_rescale else (1.0, 0.0)
        means = [float(f"{band.mean * factor + offset:.7g}") for band in moments]
        stds = [float(f"{band.std * abs(factor):.7g}") for band in moments]
        note = "# Mean and standard deviation of the training chips; without them those of the starting model count."
        parts.append(f"{note}\n{_to_yaml({'image_mean': means, 'image_std': stds})}")
    training: dict[str, Any] = {"crop_size": min(_CROP, maker.size), **_TRAINING}
    if "validation" not in splits:  # nothing to choose a checkpoint by
        training |= {"eval_strategy": "no", "load_best_model_at_end": False}
        del training["eval_steps"]
    parts.append(f"# A training to begin with\n{_to_yaml(training)}")
    if (pixels > 0).all():
        weights = pixels.sum() / (len(pixels) * pixels)
        shown = ", ".join(f"{weight:.4g}" for weight in weights)
        parts.append(f"# Inverse frequency of the classes, for classes that are rare:\n# class_weights: [{shown}]\n")
    return "\n".join(parts)


def _to_yaml(values: Mapping[str, Any]) -> str:
    """Write options as a recipe has them: one to a line, lists and mappings in brackets."""
    lines = []
    for name, value in values.items():
        text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, sort_keys=False, width=10**6)
        lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}\n")
    return "".join(lines)
