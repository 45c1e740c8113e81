# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes of a place from a catalog to a folder: found first, then downloaded side by side, file by file."""

import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from prithvi_hf.catalog.access import Credentials, hide_secrets
from prithvi_hf.catalog.download import Job, OutsideError, fetch_file
from prithvi_hf.catalog.manifest import MANIFEST, Manifest
from prithvi_hf.catalog.providers import Source, choose_source
from prithvi_hf.catalog.search import (
    Acquisition,
    Box,
    CatalogItem,
    choose_items,
    parse_bbox,
    parse_dates,
    read_item,
    search_items,
)
from prithvi_hf.disk import check_writable_folder, describe_disk_full, is_disk_full
from prithvi_hf.rasters.granules import Granule
from prithvi_hf.rasters.opening import FrameOptions, choose_files
from prithvi_hf.rasters.products import QUALITY_LAYERS
from prithvi_hf.rasters.raster import GeoTiffError


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

GRANULES = "granules"
"""Folder of the granules in the folder of a fetch."""

_CONNECTIONS = 8
_PATIENCE_SECONDS = 5  # for downloads that are under way when a run is interrupted


@dataclass(frozen=True)
class Finding:
    """What a search has found.

    Attributes:
        source: where.
        boxes: the place, as `parse_bbox` gives it.
        request: what was asked for, as the manifest notes it.
        acquisitions: in time order.
        left_out: id of each item that was left out, and why.
        problems: id of each item that cannot be used, and why.
    """

    source: Source
    boxes: tuple[Box, ...]
    request: dict[str, Any]
    acquisitions: tuple[Acquisition, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FetchResult:
    """What a fetch has brought.

    Attributes:
        folder: of the fetch.
        granules: folder of each granule, by the id of its item, of items that are complete.
        acquisitions: what was fetched, in time order, without items outside the box.
        files: how many files there are, of this run and of earlier ones.
        bytes: their size together.
        downloaded: how many came in this run.
        missing: path, or item, and the reason of each one that is missing.
    """

    folder: Path
    granules: dict[str, Path]
    acquisitions: tuple[Acquisition, ...]
    files: int
    bytes: int
    downloaded: int
    missing: dict[str, str]


def name_tool() -> str:
    """Give name and version of this package, as files and manifests have it."""
    try:
        return f"prithvi_hf {version('prithvi_hf')} fetch"
    except PackageNotFoundError:  # a source tree
        return "prithvi_hf fetch"


def find_scenes(
    bbox: Sequence[float],
    dates: str,
    collection: str | Sequence[str],
    *,
    stac: str | None = None,
    sign: str | None = None,
    max_cloud: float | None = None,
    best: int | None = None,
) -> Finding:
    """Search a catalog for scenes of a place; nothing is downloaded.

    Args:
        bbox: west, south, east and north in degrees; west is greater than east across the antimeridian.
        dates: `FROM/TO` or one date, as YYYY-MM-DD or YYYY-MM.
        collection: names of `providers.SOURCES`, or ids of collections of `stac`.
        stac: address of another STAC API.
        sign: address of an endpoint that gives tokens to sign addresses with.
        max_cloud: largest cloud cover of an item in percent.
        best: how many days to choose, those that show most of the place without clouds; None for all.

    Raises:
        ValueError: an argument is wrong, nothing is found, or the address is not that of a STAC API.
        OSError: the catalog cannot be reached, or refuses.
        ImportError: the extra `fetch` is not installed.
    """
    boxes, days = parse_bbox(bbox), parse_dates(dates)
    collections = [collection] if isinstance(collection, str) else list(collection)
    source = choose_source(collections, stac, sign)
    choose_items([], boxes, max_cloud, best)  # its arguments are checked before anybody is asked
    credentials = Credentials(source)
    credentials.check()
    items: list[CatalogItem] = []
    problems: dict[str, str] = {}
    found = search_items(source, credentials, boxes, days)
    for members in found:
        try:
            items.append(read_item(members))
        except ValueError as error:
            problems[str(members.get("id"))[:120]] = str(error)
    acquisitions, left_out = choose_items(items, boxes, max_cloud, best)
    place, time_text = " ".join(f"{number:g}" for number in bbox), "/".join(day.isoformat() for day in days)
    if not acquisitions:
        where = f"{', '.join(source.collections)} of {source.stac}"
        why = f"found none of {len(found)} fit to use" if found else "found none"
        reasons = sorted({*left_out.values(), *problems.values()})
        remedy = (
            "Raise --max_cloud, or give more dates."
            if left_out
            else "Give more dates, or check the box (west, south, east, north) and the collection."
        )
        raise ValueError(
            f"Expected scenes of {place} in {time_text} in {where}, {why}"
            f"{f' ({reasons[0][:400]})' if reasons else ''}. {remedy}"
        )
    request = {
        "stac": source.stac,
        "collections": list(source.collections),
        "bbox": [float(number) for number in bbox],
        "dates": time_text,
        "max_cloud": max_cloud,
        "best": best,
    }
    return Finding(source, boxes, request, tuple(acquisitions), left_out, problems)


def fetch_scenes(
    finding: Finding,
    output_dir: str | Path,
    *,
    image_processor: "PrithviImageProcessor | None" = None,
    whole: bool = False,
    show_progress: bool = True,
) -> FetchResult:
    """Download what a search has found: the bands that a model uses, and the quality layer, in the box.

    Files that are there from an earlier run, as they were written, are kept. What cannot be fetched does not keep the
    rest from coming; the same call fetches it later.

    Args:
        finding: from `find_scenes`.
        output_dir: folder for `granules/ITEM/FILE` and `manifest.json`.
        image_processor: of the model; its bands are fetched. None for the six bands of Prithvi.
        whole: fetch whole files, byte for byte as they are published, which can be checked by their checksums.
        show_progress: whether to show a progress bar.

    Returns:
        What is there and what is missing.

    Raises:
        ValueError: the folder is that of another box, or another run is writing there.
        OSError: the folder cannot be written, or the disk is full.
    """
    if image_processor is None:
        from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

        image_processor = PrithviImageProcessor()
    folder = Path(output_dir)
    check_writable_folder(folder, "--output")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder}: expected no other fetch to write there, found one that runs. Wait for its end."
        ) from error
    with held:
        manifest = Manifest(folder, {**finding.request, "bands": list(image_processor.bands), "whole": whole})
        for leftover in (folder / GRANULES).glob("*/.*.partial"):  # of a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        run = _Run(finding, folder, manifest, whole)
        run.plan(image_processor)
        try:
            run.download(show_progress)
        except BaseException as error:
            error.add_note(f"{len(run.done)} of {run.count} files are in {folder}; the same command continues.")
            raise
        finally:
            with suppress(OSError):  # on a full disk the journal is enough
                run.write_manifest()
        return run.report()


class _Run:
    """One fetch into one folder."""

    def __init__(self, finding: Finding, folder: Path, manifest: Manifest, whole: bool) -> None:
        self.finding, self.folder, self.manifest, self.whole = finding, folder, manifest, whole
        self.tool = name_tool()
        self.jobs: list[Job] = []
        self.count = 0
        self.done: set[str] = set()  # paths that are there
        self.new = 0
        self.missing: dict[str, str] = dict(finding.problems)
        self.outside: set[str] = set()  # ids of items
        self.paths: dict[str, list[str]] = {}  # of each item
        self.stop = threading.Event()

    def plan(self, image_processor: "PrithviImageProcessor") -> None:
        """Choose the files of every item, and leave out those that are there."""
        credentials = Credentials(self.finding.source)
        access = {name: self._guard(credentials.give_access(name)) for name in self.finding.source.collections}
        default = self._guard(credentials.give_access(self.finding.source.collections[0]))
        for item in (item for one in self.finding.acquisitions for item in one.items):
            by_layer = {file.layer: file for file in item.files}
            first = item.files[0].layer
            granule = Granule(item.id, first.product, first.tile, first.date, tuple(by_layer))
            try:
                layers = choose_files(granule, image_processor, FrameOptions())
            except ValueError as error:
                self.missing[item.id] = str(error)
                continue
            quality = [layer for layer in by_layer if layer.layer == QUALITY_LAYERS[first.product].layer]
            if not quality:
                self.finding.left_out[f"{item.id} {QUALITY_LAYERS[first.product].layer}"] = "not in the catalog"
            self.paths[item.id] = []
            for layer in [*dict.fromkeys(layers), *quality[:1]]:
                file = by_layer[layer]
                path = f"{GRANULES}/{item.folder}/{file.name}"
                self.paths[item.id].append(path)
                self.count += 1
                if self.manifest.find(path) is not None:
                    self.done.add(path)
                else:
                    self.jobs.append(Job(item, file, path, access.get(item.collection, default)))

    def _guard(self, access: Callable) -> Callable:
        """Let no request begin once the run is to stop."""

        def guarded(address: str) -> Any:
            if self.stop.is_set():
                raise GeoTiffError("interrupted")
            return access(address)

        return guarded

    def download(self, show_progress: bool) -> None:
        """Fetch the files, several at a time; an interruption waits for those under way, but not long.

        The threads are daemons: a server that has stopped sending must not hold up the end of the program.
        """
        if not self.jobs:
            return
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        answers: queue.SimpleQueue[tuple[Job, dict[str, Any] | Exception]] = queue.SimpleQueue()
        for job in self.jobs:
            waiting.put(job)
        received = 0
        guard = threading.Lock()

        def count(size: int) -> None:
            nonlocal received
            with guard:
                received += size

        def work() -> None:
            while not self.stop.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                if job.item.id in self.outside:
                    answers.put((job, OutsideError()))
                    continue
                try:
                    noted = fetch_file(job, self.folder, self.finding.boxes, self.whole, self.tool, count)
                except Exception as error:  # whatever it is, the main thread has to hear of it
                    answers.put((job, error))
                else:
                    answers.put((job, noted))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_CONNECTIONS, len(self.jobs)))]
        bar = tqdm(total=self.count, initial=len(self.done), unit="file", disable=not show_progress, desc="fetch")
        try:
            for thread in threads:
                thread.start()
            for _ in self.jobs:
                job, answer = answers.get()
                self._take(job, answer)
                bar.set_postfix_str(f"{received / 1e6:.1f} MB")
                bar.update()
        finally:
            self.stop.set()
            bar.close()
            until = time.monotonic() + _PATIENCE_SECONDS
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            while not answers.empty():  # finished while the run was ending
                job, answer = answers.get()
                if isinstance(answer, dict):
                    self._take(job, answer)

    def _take(self, job: Job, answer: dict[str, Any] | Exception) -> None:
        """Note a file that has come, or why it has not."""
        if isinstance(answer, dict):
            self.manifest.note(answer)
            self.done.add(job.path)
            self.new += 1
        elif isinstance(answer, OutsideError):
            self.outside.add(job.item.id)
        elif is_disk_full(answer):
            raise OSError(
                f"{describe_disk_full(self.folder, answer)} Free space, and give the same command again."
            ) from answer
        elif isinstance(answer, ValueError | OSError):
            # A catalog may give addresses that are signed already.
            address = job.file.href.path
            self.missing[job.path] = str(answer).replace(address, hide_secrets(address))
        else:
            raise answer

    def write_manifest(self) -> None:
        """Write the manifest of what is there now."""
        items = []
        for one in self.finding.acquisitions:
            for item in one.items:
                # Items without a file are not listed.
                items.append(
                    {
                        "id": item.id,
                        "collection": item.collection,
                        "folder": f"{GRANULES}/{item.folder}",
                        "datetime": item.date.isoformat(),
                        "sensor": item.sensor,
                        "platform": item.platform,
                        "cloud_cover": item.cloud_cover,
                        "processing_version": item.processing_version,
                        "address": item.address,
                    }
                )
        missing = dict(self.missing)
        for name, paths in self.paths.items():
            for path in paths if name not in self.outside else ():
                if path not in self.done and path not in missing:
                    missing[path] = "not fetched yet"
        left_out = {**self.finding.left_out, **dict.fromkeys(self.outside, "no pixel in the box")}
        self.manifest.write(items, missing, left_out, self.tool)
        if not missing:
            shutil.rmtree(self.folder / ".parts", ignore_errors=True)

    def report(self) -> FetchResult:
        """Sum up."""
        granules = {
            item.id: self.folder / GRANULES / item.folder
            for one in self.finding.acquisitions
            for item in one.items
            if item.id in self.paths and item.id not in self.missing and self.done.issuperset(self.paths[item.id])
        }
        acquisitions = []
        for one in self.finding.acquisitions:
            items = tuple(item for item in one.items if item.id not in self.outside)
            if items:
                acquisitions.append(Acquisition(one.day, one.sensor, items, one.clear))
        size = sum(int(self.manifest.files[path]["bytes"]) for path in self.done)
        return FetchResult(
            self.folder, granules, tuple(acquisitions), len(self.done), size, self.new, dict(self.missing)
        )


__all__ = ["GRANULES", "MANIFEST", "FetchResult", "Finding", "fetch_scenes", "find_scenes", "name_tool"]
