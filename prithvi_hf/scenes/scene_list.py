# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Lists of scenes: text, CSV, JSON lines, a glob, a folder of granules, or a STAC item collection.

Lists come from elsewhere, so nothing in them is trusted: names become plain file names, links to other machines are
refused unless they are allowed, and no path reaches GDAL that it could take for one of its own protocols. What is
wrong with one scene is that scene's problem: a scene whose files are missing or damaged fails when its turn comes, and
the others do not.
"""

import csv
import glob
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from prithvi_hf.disk import LONGEST_NAME, plain_name
from prithvi_hf.outputs.cog import is_own_map
from prithvi_hf.outputs.registry import OUTPUTS
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.granules import (
    StatedFile,
    group_bands,
    group_granules,
    list_geotiffs,
    parse_layer,
    parse_name,
)
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.rasters.stac_assets import escape, is_band, is_imagery, state_asset
from prithvi_hf.scenes.scene import Scene, open_scene


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor


MAX_LIST_BYTES = 512 * 2**20  # half a million STAC items
_TILE_PROPERTIES = ("grid:code", "s2:mgrs_tile", "s2:tile_id")
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIDE_SUFFIXES = (".xml", ".ovr", ".msk", ".tfw", ".prj")
_BESIDE_MAPS = (*_SIDE_SUFFIXES, *({suffix for output in OUTPUTS for suffix in output.suffixes} - {*TIFF_SUFFIXES}))
_WORD = re.compile(r"""#.*|(?:"[^"]*"|'[^']*'|[^\s"'])+|["']""")  # of a line; a quote alone is one that is not closed

FramePath = str | StatedFile
Frame = FramePath | tuple[FramePath, ...]


@dataclass(frozen=True)
class SceneEntry:
    """One scene of a list."""

    name: str  # plain file name without suffix, unlike every other of the list; its outputs begin with it
    frames: tuple[Frame, ...]  # as `open_scene` takes them, in time order: a file each, or the files of its bands
    origin: str  # where in the list it is, for messages
    dates: tuple[str, ...] | None = None  # of each frame, as ISO text, where the list says so
    problem: str | None = None  # why it cannot be mapped, where the list alone shows that

    @property
    def files(self) -> tuple[str, ...]:
        """Every path of the scene."""
        frames = (frame if isinstance(frame, tuple) else (frame,) for frame in self.frames)
        return tuple(os.fspath(path) for frame in frames for path in frame)


_UNNAMED = ""  # the name of a scene that is called after its first file in the end
_Row = tuple[str, str, Sequence[Any] | None, str | None]  # origin, name, frames, and what is wrong with the row
_Dated = tuple[str, SceneEntry]  # what identifies a place, and one date of it


def list_scenes(
    source: str | os.PathLike,
    *,
    num_frames: int = 1,
    allow_remote: bool = False,
    output_dir: str | os.PathLike | None = None,
    more_dates: bool = False,
) -> list[SceneEntry]:
    """Read a list of scenes.

    | source | scenes |
    |---|---|
    | folder | its HLS or Sentinel-2 granules (one file per band, at any depth), else each GeoTIFF |
    | glob, with `*`, `?` or `[` | each match: a GeoTIFF, or a granule's folder |
    | `.csv`, `.tsv` | one per row; frames in the columns whose names begin with `frame`, optionally `name` |
    | `.jsonl`, `.ndjson` | one per line: `{"frames": ["june.tif", ...], "name": "a"}`; a list for a path: band files |
    | `.json`, `.geojson` | the items of a STAC item collection |
    | any other file | one per line, frames separated by blanks, quoted where they hold some; `#` begins a comment |

    Paths are relative to the folder of the list. Of a model of one frame every granule and every item is a scene; of
    more frames all dates of a tile, in time order, are one; with `more_dates` they may be more than the frames.

    Scenes come in the order of the list (folders and globs: by name). A scene without a name is called after its first
    file; in folders and globs also after the subfolders that it is in, in a list after as many as tell it from the
    lines before. So scenes that are added do not change the names of others. Of folders and globs, maps that this
    package wrote are left out, and what is in `output_dir` where that is inside the folder.

    What is wrong with single scenes, such as an address where `allow_remote` is not set, a file of an impossible date
    or a granule that is there twice, is their `problem`; a list that is none, holds no scene, none that names a frame,
    or a name twice is a ValueError.
    """
    source = os.fspath(source)
    _check_path(source, "--scenes")
    magic = re.search(r"[*?\[]", source) if not os.path.exists(source) else None
    # The folder, the folders of a glob that are spelled out, or the folder of a list.
    is_folder = os.path.isdir(source)
    base = source if is_folder else os.path.dirname(source[: magic.start()] if magic else source)
    base = os.path.abspath(base)
    if is_folder or magic:
        paths = [source] if is_folder else sorted(glob.glob(source, recursive=True))
        scenes = _list_files(paths, num_frames, source, base, output_dir, more_dates)
    else:
        text, suffix = _read_text(source), Path(source).suffix.lower()
        if suffix in (".json", ".geojson"):
            scenes = _group_dates(_read_stac(text, source, base, allow_remote), num_frames, more_dates)
        else:
            rows = _read_json_lines(text, source) if suffix in (".jsonl", ".ndjson") else _read_lines(text, source)
            if suffix in (".csv", ".tsv"):
                rows = _read_table(text, source, "\t" if suffix == ".tsv" else ",")
            scenes = [_read_row(*row, base, allow_remote) for row in rows]
    if scenes and not any(any(scene.frames) for scene in scenes):
        raise ValueError(escape(scenes[0].problem or ""))
    if not scenes:
        raise ValueError(f"{source}: expected at least one scene, found none. Check the path, or what the list holds.")
    return _name_scenes(scenes, source, base, is_list=not is_folder and magic is None)


def check_imagery(entry: SceneEntry) -> None:
    """Refuse local files of a scene that are not TIFFs, of which nothing is told, and maps that this package wrote.

    Whoever writes a list may name any file of this machine: messages must not show what is in it.
    """
    for path in entry.files:
        if not os.path.isfile(path) or path.lower().endswith(".vrt"):  # opening them has messages of its own
            continue
        with open(path, "rb") as file:
            start = file.read(4)
        if start not in _TIFF_SIGNATURES:
            raise ValueError(
                f"{entry.origin}: expected a GeoTIFF, found {path}, a file of another format. Convert it with "
                "`gdal_translate -of GTiff`, or download it again."
            )
        if is_own_map(path):
            raise ValueError(f"{entry.origin}: expected imagery, found the map {path}. Leave it out of the list.")


def open_entry(entry: SceneEntry, image_processor: "PrithviImageProcessor", options: FrameOptions) -> Scene:
    """Open a scene of a list, whose pixels are not read yet; what the list says of dates wins over the options."""
    check_imagery(entry)
    frames = [list(frame) if isinstance(frame, tuple) else frame for frame in entry.frames]
    return open_scene(frames, image_processor, replace(options, dates=entry.dates), name=entry.name)


def _read_text(source: str) -> str:
    """Read a list, or say what it should have been."""
    if not os.path.isfile(source):
        raise ValueError(
            f"{source}: expected a list of scenes (text, .csv, .jsonl, STAC .json), a folder or a glob, found nothing "
            "there. Check the path; quote a glob, so that the shell leaves it."
        )
    if os.path.getsize(source) > MAX_LIST_BYTES:
        raise ValueError(
            f"{source}: expected a list of at most {MAX_LIST_BYTES:,} bytes, found {os.path.getsize(source):,}. "
            "Divide it into several lists."
        )
    if source.lower().endswith(TIFF_SUFFIXES):
        raise ValueError(f"{source}: expected a list of scenes, found a GeoTIFF: name it by --frames, or in a list.")
    # Bytes that are not UTF-8 become single surrogates, which end the scene that they are in.
    text = Path(source).read_bytes().decode("utf-8", "surrogateescape")
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def _read_lines(text: str, source: str) -> Iterator[_Row]:
    """Read a text list."""
    for number, line in enumerate(text.split("\n"), start=1):
        origin, words = f"{source}, line {number}", _WORD.findall(line)
        if words and words[-1].startswith("#"):
            del words[-1]
        if "'" in words or '"' in words:
            wrong = f"expected paths, quoted where they hold blanks, found {line[:200]!r} (a quote is not closed)."
            yield origin, "", None, wrong
        elif words:
            yield origin, _UNNAMED, [re.sub(r"\"([^\"]*)\"|'([^']*)'", r"\1\2", word) for word in words], None


def _read_table(text: str, source: str, delimiter: str) -> Iterator[_Row]:
    """Read a CSV with a header."""
    # Line by line: a quote that is not closed ends one row, not the table.
    first, *lines = text.split("\n")
    delimiter = ";" if delimiter == "," and ";" in first and "," not in first else delimiter
    header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    columns = [index for index, name in enumerate(header) if name.startswith("frame")]
    if not columns:
        raise ValueError(
            f"{source}: expected a header with columns frame_1, frame_2, ... (and name), found {header}. Add one."
        )
    for number, line in enumerate(lines, start=2):
        origin = f"{source}, row {number}"
        try:
            row = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            yield origin, "", None, f"expected a table with one scene per line, found {line[:200]!r} ({error})."
            continue
        if any(row) and len(row) != len(header):
            yield origin, "", None, f"expected {len(header)} columns as in the header, found {len(row)}."
        elif any(row):
            name = row[header.index("name")].strip() if "name" in header else _UNNAMED
            yield origin, name, [row[index].strip() for index in columns if row[index].strip()], None


def _read_json_lines(text: str, source: str) -> Iterator[_Row]:
    """Read one JSON object per line."""
    for number, line in enumerate(text.split("\n"), start=1):
        origin, problem, row = f"{source}, line {number}", None, {}
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f"expected JSON, found something else ({error})."
        if problem is None and (not isinstance(row, dict) or not isinstance(row.get("frames"), list)):
            problem = f'expected an object such as {{"frames": ["a.tif"], "name": "a"}}, found {line[:80]}.'
        elif problem is None and not isinstance(row.get("name", ""), str | None):
            problem = f"expected a text as name, found {row['name']!r}."
        yield (origin, "", None, problem) if problem else (origin, row.get("name") or _UNNAMED, row["frames"], None)


def _read_row(
    origin: str, name: str, frames: Sequence[Any] | None, problem: str | None, base: str, allow_remote: bool
) -> SceneEntry:
    """Check one row of a list and resolve its paths; a row that is refused is called after its place in the list."""
    resolved: list[Frame] = []
    try:
        if not frames:
            raise ValueError(f"{origin}: {problem or 'expected at least one frame, found none.'}")
        for frame in frames:
            if isinstance(frame, list) and frame:
                resolved.append(tuple(_resolve(part, origin, base, allow_remote) for part in frame))
            else:
                resolved.append(_resolve(frame, origin, base, allow_remote))
    except ValueError as error:
        # What was refused is not kept as a path: nothing shall ever open it.
        return SceneEntry(name or origin.rpartition(", ")[2], (), origin, problem=str(error))
    return SceneEntry(name, tuple(resolved), origin)


def _resolve(path: Any, origin: str, base: str, allow_remote: bool) -> str:
    """Turn what a list says into a local path or an allowed address."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{origin}: expected the path of a frame, found {path!r}.")
    _check_path(path, origin)
    if "://" not in path:
        local = os.path.normpath(os.path.join(base, os.path.expanduser(path)))
        if "\\" in path and os.sep == "/" and not os.path.exists(local):
            raise ValueError(f"{origin}: expected a path with /, found {path!r} with the separator of Windows.")
        return local
    try:
        address = urlsplit(path)
    except ValueError as error:
        raise ValueError(f"{origin}: expected a path or an http(s) address, found {path!r} ({error}).") from error
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        local = unquote(address.path, errors="surrogateescape")
        _check_path(local, origin)
        return os.path.normpath(local)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{origin}: expected a local path or an http(s) address, found {path!r}. Download it first.")
    if not allow_remote:
        raise ValueError(
            f"{origin}: {path} is on another machine, and this list could name any: allow that with --allow_remote "
            "where you trust it, or download the files first."
        )
    return f"{address.scheme}{path[len(address.scheme) :]}"  # in small letters


def _check_path(path: str, origin: str) -> None:
    """Refuse what GDAL or the system would take for something other than a file's path."""
    if re.search(r"[\ud800-\udfff]", path):
        raise ValueError(
            f"{origin}: expected a path in UTF-8, found other bytes in {path!r}. Save the list as UTF-8, or rename "
            "the file."
        )
    is_address = path.lower().startswith(("http://", "https://"))  # `::` is in those of IPv6
    if "\0" in path or path.lstrip().lower().startswith("/vsi") or ("::" in path and not is_address):
        raise ValueError(
            f"{origin}: expected the path of a file, found {path!r}, a name of GDAL's own or none at all."
        )


def _list_files(
    paths: Sequence[str],
    num_frames: int,
    origin: str,
    base: str,
    output_dir: str | os.PathLike | None,
    more_dates: bool,
) -> list[SceneEntry]:
    """Make scenes of files and of the granules in folders, by the names of their files."""
    found = (file for path in paths for file in (list_geotiffs(path) if os.path.isdir(path) else [path]))
    granules: dict[str, list[str]] = {}
    broken: list[SceneEntry] = []  # files that cannot be of any date
    others: list[str] = []
    for file in dict.fromkeys(map(os.path.normpath, found)):  # `**` gives folders and, once more, what is in them
        if file.lower().endswith(_BESIDE_MAPS):
            continue
        try:
            _check_path(file, origin)
            layer = parse_layer(file)
        except ValueError as error:
            broken.append(SceneEntry(_UNNAMED, (file,), origin, problem=str(error)))
            continue
        if layer is None:
            others.append(file)
        else:
            granules.setdefault(layer.granule, []).append(file)
    outputs = None if output_dir is None else Path(output_dir).resolve()
    is_inside = outputs is not None and Path(base).resolve() in outputs.parents
    kept, left = list[str](), list[str]()
    for file in others:
        is_output = outputs is not None and outputs in Path(file).resolve().parents
        if is_own_map(file):
            left += [] if is_output else [file]
        else:
            (left if is_inside and is_output else kept).append(file)
    if left:
        warnings.warn(
            f"{origin}: {len(left)} GeoTIFFs are not taken for scenes, e.g. {os.path.basename(min(left))}: they are "
            "maps that this package wrote, or in the output folder.",
            stacklevel=3,
        )
    others = kept
    if not granules:
        # Folders with a file for each band are scenes, called as their folder is; what else is there are masks.
        stacks, scenes = group_bands(others), []
        for folder, files in stacks.items():
            parts = [part for part in Path(os.path.relpath(folder, base)).parts if part != ".."]
            name = "_".join(parts) or os.path.basename(os.path.abspath(folder))
            scenes.append(SceneEntry(name, (tuple(files),), origin))
        scenes += [SceneEntry(_UNNAMED, (file,), origin) for file in others if os.path.dirname(file) not in stacks]
        return broken + scenes
    if others:
        warnings.warn(
            f"{origin}: {len(others)} GeoTIFFs are left out, e.g. {os.path.basename(min(others))}: their names are "
            "not those of a band of a granule, as the others' are.",
            stacklevel=3,
        )
    dates: list[_Dated] = []
    for name, files in sorted(granules.items()):
        problem = None
        try:
            layers = group_granules(files)[0].files
        except ValueError as error:
            problem, layers = str(error), tuple(filter(None, map(parse_layer, files)))
        frame = _to_frame([os.fspath(layer.path) for layer in layers])
        entry = SceneEntry(name, frame, origin, (layers[0].date.isoformat(),), problem)
        dates.append((f"T{layers[0].tile}", entry))
    return _group_dates(dates, num_frames, more_dates) + broken


def _to_frame(files: Sequence[FramePath]) -> tuple[Frame, ...]:
    """Give the frame of one date as `open_scene` takes it: its only file, or its band files; none without files."""
    return tuple(files) if len(files) < 2 else (tuple(files),)


def _group_dates(dates: Sequence[_Dated], num_frames: int, more_dates: bool) -> list[SceneEntry]:
    """Make one scene per date for models of one frame, else one per tile of all its dates."""
    if num_frames == 1:
        return [entry for _, entry in dates]
    tiles: dict[str, list[SceneEntry]] = {tile: [] for tile, _ in dates}
    for tile, entry in sorted(dates, key=lambda dated: dated[1].dates or ()):
        tiles[tile].append(entry)
    scenes = []
    for tile, entries in tiles.items():
        known = [date for entry in entries for date in entry.dates or ("",)]
        days = [date[:10] for date in known]
        problem = next((entry.problem for entry in entries if entry.problem), None)
        fits = len(days) == num_frames or (more_dates and len(days) > num_frames)
        if problem is None and not fits:  # which of too many dates are meant is not guessed
            listing = ", ".join(days[:12]) + (", ..." if len(days) > 12 else "")
            problem = (
                f"the model takes {num_frames} frames, tile {tile} has {len(days)} ({listing}): put the dates that "
                "belong together into a list, one scene per line."
            )
        name = "_".join([tile, *([days[0], days[-1]] if days[0] else [])])
        frames = tuple(frame for entry in entries for frame in entry.frames)
        scenes.append(SceneEntry(name, frames, entries[0].origin, tuple(known) if all(known) else None, problem))
    return scenes


def _read_stac(text: str, source: str, base: str, allow_remote: bool) -> list[_Dated]:
    """Read the items of a STAC item collection: plain JSON, of which only a few members matter here."""
    try:
        collection = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: expected JSON, found something else ({error}).") from error
    if isinstance(collection, dict) and collection.get("type") == "Feature":
        collection = {"type": "FeatureCollection", "features": [collection]}
    items = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(items, list) or collection.get("type") != "FeatureCollection":
        raise ValueError(
            f"{source}: expected a STAC item collection, an object of type FeatureCollection with features, found "
            "another. Save the result of a search as one, e.g. `items.save_object(...)` of pystac."
        )
    return [_read_item(item, f"{source}, item {number}", base, allow_remote) for number, item in enumerate(items, 1)]


def _read_item(item: Any, origin: str, base: str, allow_remote: bool) -> _Dated:
    """Read one item of a STAC collection."""
    members = item if isinstance(item, dict) else {}
    name, assets, properties = members.get("id"), members.get("assets"), members.get("properties")
    if not isinstance(name, str) or not isinstance(assets, dict) or not isinstance(properties, dict):
        place = origin.rpartition(", ")[2]
        wrong = f"{origin}: expected a STAC item with id, properties and assets, found none."
        return place, SceneEntry(place, (), origin, problem=wrong)
    origin = f"{origin} ({name[:60]})"
    moment = properties.get("datetime") or properties.get("start_datetime")
    dates = (escape(moment),) if isinstance(moment, str) else None
    try:
        files = [
            state_asset(key, asset, properties, _resolve(asset["href"], origin, base, allow_remote), origin)
            for key, asset in assets.items()
            if is_imagery(asset)
        ]
        known = parse_name(name)
        # Of a product's layers, and of assets that are called like bands, the others are masks, angles and pictures.
        layers = [file for file in files if parse_layer(file) is not None]
    except ValueError as error:
        return name, SceneEntry(name, (), origin, dates, str(error))
    bands = [file for file in files if any(map(is_band, (Path(file).stem, *getattr(file, "names", ()))))]
    files = layers or bands or files
    tiles = [properties[key] for key in _TILE_PROPERTIES if isinstance(properties.get(key), str)]
    tile = f"T{known.tile}" if known is not None else next(iter(tiles), name)
    problem = None if files else f"{origin}: expected assets that are GeoTIFFs, found {sorted(assets)[:20]}."
    return tile, SceneEntry(name, _to_frame(files), origin, dates, problem)


def _name_scenes(scenes: Sequence[SceneEntry], source: str, base: str, *, is_list: bool) -> list[SceneEntry]:
    """Give every scene a plain file name of its own, whatever the case of letters means to a file system.

    Names must stay when scenes are added, or finished maps would be made again. Scenes of folders are called after
    their whole path; of two that are equal the one in fewer folders keeps it. In a list, where scenes are added at the
    end, the first one keeps it.
    """
    owners: dict[str, SceneEntry] = {}
    names = [""] * len(scenes)

    def rank(index: int) -> tuple[bool, int]:
        scene = scenes[index]
        return scene.name == _UNNAMED, 0 if is_list or not scene.files else scene.files[0].count(os.sep)

    for index in sorted(range(len(scenes)), key=rank):
        scene = scenes[index]
        if scene.name != _UNNAMED:
            candidates = [scene.name]
        else:
            first = scene.files[0]
            path = PurePosixPath(urlsplit(first).path if "://" in first else os.path.abspath(first))
            depths = range(1, 5) if is_list else [len(path.relative_to(base).parts)]
            candidates = ["_".join([*path.parts[-depth:-1], path.stem]) for depth in depths]
            digest = hashlib.sha256(repr(scene.frames).encode()).hexdigest()[:8]
            candidates.append(f"{plain_name(candidates[0])[: LONGEST_NAME // 2]}-{digest}")
        plain = [plain_name(candidate) for candidate in candidates]
        same = next((owners[name.lower()] for name in plain if name.lower() in owners), None)
        free = next((name for name in plain if name.lower() not in owners), None)
        if same is not None and (free is None or same.frames == scene.frames):
            raise ValueError(
                f"{source}: expected a name of its own for every scene, found {plain[0]} more than once "
                f"({same.origin}; {scene.origin}), which would be one output. Name the scenes in a CSV or JSON lines "
                "list."
            )
        names[index] = str(free)
        owners[names[index].lower()] = scene
    return [
        replace(scene, name=name, origin=escape(scene.origin), problem=scene.problem and escape(scene.problem))
        for scene, name in zip(scenes, names, strict=True)
    ]
