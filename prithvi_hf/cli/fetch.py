# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf fetch`: scenes of a place and of dates from a catalog, which `predict --bbox` maps."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import Commands, add_command, import_quickly, load_image_processor
from prithvi_hf.cli.composite import FMASK_OPTION, METHODS, print_composite


if TYPE_CHECKING:
    from prithvi_hf.catalog.fetch import FetchResult, Finding
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

__all__ = ["add_parser", "run"]

_EPILOG = """examples:
  prithvi-hf fetch --bbox -120.7 39.6 -120.5 39.8 --dates 2022-06-01/2022-06-30 --collection hls --output june
  prithvi-hf fetch --bbox 12.2 45.3 12.5 45.5 --dates 2022-07 --collection sentinel-2-l2a --best 1 --output venice
  prithvi-hf fetch --bbox 12.2 45.3 12.5 45.5 --dates 2022-06/2022-08 --collection landsat-c2-l2 --max_cloud 60 \\
      --composite median --output summer

A fetch that was interrupted continues when the same command is given again, which also tries again what has failed.
The exit status is 1 when a file is missing, and manifest.json says why. Tokens are taken from the environment
(EARTHDATA_TOKEN, STAC_TOKEN) or ~/.netrc. Needs the extra `fetch`.
"""

SEARCH_OPTIONS: dict[str, dict[str, Any]] = {
    "--bbox": {
        "nargs": 4,
        "type": float,
        "metavar": ("W", "S", "E", "N"),
        "help": "west, south, east and north in degrees; west is greater than east across the antimeridian",
    },
    "--collection": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "hls, sentinel-2-l2a or landsat-c2-l2; with --stac also ids of its collections",
    },
    "--stac": {"metavar": "URL", "help": "another STAC API than the collection's own"},
    "--sign": {
        "metavar": "URL",
        "help": "endpoint that gives, for URL/COLLECTION, a token that signs addresses (default: the Planetary "
        "Computer's, for its own STAC API)",
    },
    "--max_cloud": {"type": float, "metavar": "PERCENT", "help": "largest cloud cover of an item"},
}
"""Options of a search, which `predict` has too."""


def add_parser(commands: Commands) -> None:
    """Describe `fetch`."""
    text = "find scenes of a place and of dates in a catalog, and download the bands and the window that are needed"
    parser = add_command(commands, "fetch", text, epilog=_EPILOG)
    for flag, settings in SEARCH_OPTIONS.items():
        parser.add_argument(flag, required=flag in ("--bbox", "--collection"), **settings)
    parser.add_argument(
        "--dates", required=True, metavar="FROM/TO", help="days, YYYY-MM-DD or YYYY-MM: FROM/TO, or one of them"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for granules and manifest.json")
    parser.add_argument(
        "--model", metavar="MODEL", help="folder or Hub id of a model: its bands are fetched (default: Prithvi's six)"
    )
    parser.add_argument(
        "--best", type=int, metavar="N", help="only the N days that show most of the place without clouds"
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="whole files as they are published, checked by their checksums, in place of the window",
    )
    parser.add_argument(
        "--mosaic",
        action="store_true",
        help="also put the granules of each day and sensor together: mosaics/SENSOR_DAY.tif",
    )
    parser.add_argument(
        "--composite", choices=METHODS, help="also make composite.tif of all days, as `prithvi-hf composite` does"
    )
    parser.add_argument("--fmask", **{**FMASK_OPTION, "help": f"with --mosaic or --composite: {FMASK_OPTION['help']}"})
    parser.add_argument(
        "--quicklook", action="store_true", help="also draw quicklook.png, a small picture of every day"
    )
    parser.add_argument("--dry_run", action="store_true", help="list what is found, and download nothing")
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor summary")


def run(options: argparse.Namespace) -> int:
    """Fetch scenes; the exit status is 1 where a file is missing."""
    if options.fmask is not None and not (options.mosaic or options.composite):
        raise ValueError("--fmask says what a mosaic or a composite leaves out: add --mosaic or --composite.")
    with import_quickly():
        from prithvi_hf.catalog import fetch_scenes, find_scenes
        from prithvi_hf.disk import check_writable_folder
        from prithvi_hf.scenes.composite import DEFAULT_FMASK

    check_writable_folder(options.output, "--output")
    image_processor = load_image_processor(options.model) if options.model else None
    search = {name: getattr(options, name) for name in ("stac", "sign", "max_cloud", "best")}
    finding = find_scenes(options.bbox, options.dates, options.collection, **search)
    if not options.quiet or options.dry_run:
        print_finding(finding)
    if options.dry_run:
        return 0
    result = fetch_scenes(
        finding,
        options.output,
        image_processor=image_processor,
        whole=options.whole,
        show_progress=not options.quiet,
    )
    if not options.quiet:
        print(
            f"{result.files} files of {len(result.granules)} granules in {result.folder}, "
            f"{result.bytes / 1e6:,.1f} MB, {result.downloaded} of them new; manifest.json says where they are from"
        )
    if report_missing(options.command, result):
        return 1
    if options.quicklook:
        _draw(list(result.granules.values()), result.folder / "quicklook.png", image_processor)
    if options.mosaic:
        fmask = tuple(options.fmask or ())
        for acquisition in result.acquisitions:
            folders = [result.granules[item.id] for item in acquisition.items]
            path = result.folder / "mosaics" / f"{acquisition.name}.tif"
            _compose(folders, path, "clearest", fmask, image_processor, options.quiet)
    if options.composite:
        fmask = DEFAULT_FMASK if options.fmask is None else tuple(options.fmask)
        path = result.folder / "composite.tif"
        _compose(list(result.granules.values()), path, options.composite, fmask, image_processor, options.quiet)
    return 0


def print_finding(finding: "Finding") -> None:
    """List what a search has found."""
    for one in finding.acquisitions:
        clouds = [item.cloud_cover for item in one.items if item.cloud_cover is not None]
        cover = f"{sum(clouds) / len(clouds):.0f} % clouds" if clouds else "clouds unknown"
        text = f"{len(one.items):>3} granules, {100 * one.clear:3.0f} % of the box clear, {cover}"
        print(f"{one.day}  {one.sensor:<15} {text}")
    if finding.left_out:
        print(f"{len(finding.left_out)} items are left out; manifest.json says why")


def report_missing(command: str, result: "FetchResult") -> bool:
    """Say what is missing; returns whether anything is."""
    if not result.missing:
        return False
    for name, reason in sorted(result.missing.items())[:10]:
        print(f"prithvi-hf {command}: missing {name}: {reason}", file=sys.stderr)
    print(
        f"prithvi-hf {command}: error: {len(result.missing)} files are missing, {result.folder / 'manifest.json'} "
        "says why. Give the same command again to fetch them.",
        file=sys.stderr,
    )
    return True


def _draw(folders: Sequence[Path], path: Path, image_processor: "PrithviImageProcessor | None") -> None:
    """Draw a picture of every day, with its clouds."""
    from prithvi_hf.rasters.opening import FrameOptions
    from prithvi_hf.scenes.composite import draw_days, make_processor, open_options
    from prithvi_hf.scenes.scene import open_scene

    processor, opening = make_processor(image_processor), open_options(FrameOptions())
    draw_days([open_scene(folder, processor, opening, name=folder.name) for folder in folders], processor, path)


def _compose(
    folders: Sequence[Path],
    path: Path,
    method: Any,
    fmask: Sequence[str],
    image_processor: "PrithviImageProcessor | None",
    quiet: bool,
) -> None:
    """Put granules together into one file."""
    from prithvi_hf.rasters.opening import FrameOptions
    from prithvi_hf.scenes.composite import digest_scenes, is_made_of, make_processor, open_options, write_composite
    from prithvi_hf.scenes.scene import open_scene

    processor, opening = make_processor(image_processor), open_options(FrameOptions(fmask=fmask))
    scenes = [open_scene(folder, processor, opening, name=folder.name) for folder in folders]
    if is_made_of(path, digest_scenes(scenes, method, fmask)):
        return  # by an earlier run, whose map may be half finished
    path.parent.mkdir(exist_ok=True)
    result = write_composite(scenes, processor, path, method=method, fmask=fmask, show_progress=not quiet)
    if not quiet:
        print_composite(result)


def fetch_frames(
    options: argparse.Namespace, periods: Sequence[str], image_processor: "PrithviImageProcessor", folder: Path
) -> tuple[list[str], list[str], bool] | None:
    """Fetch the frames of one scene for `predict --bbox`: of each period the best day.

    Args:
        options: of `predict`.
        periods: its --dates, a date or FROM/TO for each frame of the model.
        image_processor: of the model.
        folder: where the files go.

    Returns:
        The frames as `open_scene` takes them, their dates, and whether they are mosaics, from which --fmask is applied
        already; None where a file is missing, of which was told.
    """
    from prithvi_hf.catalog import fetch_scenes, find_scenes

    count = image_processor.num_frames
    if len(periods) != count:
        raise ValueError(
            f"Expected --dates with {count} dates or periods FROM/TO with --bbox, one for each frame of the model, "
            f"found {len(periods)}. Of each period the day that shows most of the place without clouds is taken."
        )
    search = {name: getattr(options, name) for name in ("stac", "sign", "max_cloud")}
    found = [find_scenes(options.bbox, dates, options.collection, best=1, **search) for dates in periods]
    days = [finding.acquisitions[0] for finding in found]
    for day, later in itertools.pairwise(days):
        if day.day >= later.day:
            raise ValueError(
                f"Expected a day of its own in each period of --dates, in time order, found {day.day} and "
                f"{later.day}. Give periods that do not overlap."
            )
    if not options.quiet:
        for finding in found:
            print_finding(finding)
    problems = {name: text for finding in found for name, text in finding.problems.items()}
    left_out = {name: text for finding in found for name, text in finding.left_out.items()}
    request = {**found[0].request, "dates": " ".join(periods)}
    finding = replace(found[0], request=request, acquisitions=tuple(days), problems=problems, left_out=left_out)
    several = any(len(day.items) > 1 for day in days)
    if several and options.fmask and options.fmask_rule == "any" and count > 1:
        raise ValueError(
            "Expected --fmask_rule all for a place in several tiles and several dates: in mosaics masked pixels "
            "are filled from other tiles and dates. Add it, or leave --fmask out."
        )
    result = fetch_scenes(finding, folder, image_processor=image_processor, show_progress=not options.quiet)
    if report_missing(options.command, result):
        return None
    if len(result.acquisitions) != count:
        raise ValueError(
            f"Expected pixels of {count} days in the box, found those of {len(result.acquisitions)}: footprints of "
            "the others are larger than their files. Give a larger box or other dates."
        )
    frames = []
    for day in result.acquisitions:
        folders = [result.granules[item.id] for item in day.items]
        path = result.folder / "mosaics" / f"{day.name}.tif"
        if several:
            _compose(folders, path, "clearest", options.fmask, image_processor, options.quiet)
        frames.append(str(path if several else folders[0]))
    dates = [min(item.date for item in day.items).isoformat() for day in result.acquisitions]
    return frames, dates, several
