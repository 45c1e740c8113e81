# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Lists of scenes: text, CSV, JSON lines, a glob, a folder of granules, or a STAC item collection.

Lists come from elsewhere, so nothing in them is trusted: names become plain file names, links to other machines are
refused unless they are allowed, and no path reaches GDAL that it could take for one of its own protocols. No pixel
file is opened here: a scene whose files are missing or damaged fails when its turn comes, and the others do not.
"""

import csv
import glob
import hashlib
import io
import json
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from prithvi_hf.rasters.granules import SUFFIXES, group_granules, parse_band_file
from prithvi_hf.rasters.hls import parse_hls_name


MAX_LIST_BYTES = 512 * 2**20  # half a million STAC items
_LONGEST_NAME = 120  # bytes; outputs add a suffix, and file systems end at 255
_REMOTE_SCHEMES = ("http", "https")
_GLOB = re.compile(r"[*?\[]")
_TILE_PROPERTIES = ("grid:code", "s2:mgrs_tile", "s2:tile_id")
_NO_DATA_ROLES = {"thumbnail", "overview", "visual", "metadata", "date"}

Frame = str | tuple[str, ...]


@dataclass(frozen=True)
class SceneEntry:
    """One scene of a list.

    Attributes:
        name: Plain file name without suffix, unlike every other of the list; its outputs begin with it.
        frames: What `open_scene` takes, in time order: a path a frame, or the paths of its band files.
        origin: Where in the list it stands, for messages.
        dates: When each frame was acquired, as ISO text, where the list says so.
        problem: Why it cannot be mapped, where the list alone shows that; None for no problem.
    """

    name: str
    frames: tuple[Frame, ...]
    origin: str
    dates: tuple[str, ...] | None = None
    problem: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every path of the scene."""
        return tuple(path for frame in self.frames for path in ([frame] if isinstance(frame, str) else frame))


@dataclass(frozen=True)
class _Found:
    """A scene before its name is made unlike the others.

    Attributes:
        given_name: The name that the list gives, None for none.
    """

    given_name: str | None
    frames: tuple[Frame, ...]
    origin: str
    dates: tuple[str, ...] | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _Granule:
    """One date of one place.

    Attributes:
        tile: What identifies the place, None where nothing does.
        date: When it was acquired, as ISO text; empty where nothing tells.
        files: Its band files, or one file with all bands.
    """

    name: str
    tile: str | None
    date: str
    files: tuple[str, ...]
    origin: str
    problem: str | None = None

    @property
    def frame(self) -> Frame:
        """As `open_scene` takes it."""
        return self.files[0] if len(self.files) == 1 else self.files


def list_scenes(source: str | os.PathLike, *, num_frames: int = 1, allow_remote: bool = False) -> list[SceneEntry]:
    """Read a list of scenes; no pixel file is opened.

    | source | scenes |
    |---|---|
    | folder | its HLS or Sentinel-2 granules (one file a band, at any depth), else each GeoTIFF |
    | glob, with `*`, `?` or `[` | each match: a GeoTIFF, or a granule's folder |
    | `.csv`, `.tsv` | one a row; frames in the columns whose names begin with `frame`, optionally `name` |
    | `.jsonl`, `.ndjson` | one a line: `{"frames": ["june.tif", ...], "name": "a"}`; a list for a path: band files |
    | `.json`, `.geojson` | the items of a STAC item collection |
    | any other file | one a line, frames separated by blanks, quoted where they hold some; `#` begins a comment |

    Paths are relative to the folder of the list. Of a model of one frame every granule and every item is a scene; of
    more frames all dates of a tile, in time order, are one.

    Args:
        source: The list.
        num_frames: Frames that the model takes.
        allow_remote: Whether frames may be http(s) addresses.

    Returns:
        The scenes, in the order of the list (folders and globs: by name). What is wrong with single ones, such as an
        address that is not allowed, a file of an impossible date or a granule that lies there twice, is their
        `problem`.

    Raises:
        ValueError: If it is no such list, holds no scene or none that names a frame, or gives a name twice.
        OSError: If it cannot be read.
    """
    source = os.fspath(source)
    _check_path(source, "--scenes")
    if os.path.isdir(source):
        found = _scenes_of_paths(_list_folder(source), num_frames, source)
    elif _GLOB.search(source) and not os.path.exists(source):
        found = _scenes_of_paths(sorted(glob.glob(source, recursive=True)), num_frames, source)
    else:
        found = _read_list(source, num_frames, allow_remote)
    if found and not any(any(scene.frames) for scene in found):
        raise ValueError(found[0].problem)
    if not found:
        raise ValueError(f"{source}: expected at least one scene, found none. Check the path, or what the list holds.")
    return _with_unique_names(found, source)


def _read_list(source: str, num_frames: int, allow_remote: bool) -> list[_Found]:
    """Read a file that lists scenes."""
    text = _read_text(source)
    suffix, base = Path(source).suffix.lower(), os.path.dirname(os.path.abspath(source))
    if suffix in (".json", ".geojson"):
        return _scenes_of_granules(_read_stac(text, source, base, allow_remote), num_frames)
    if suffix in (".csv", ".tsv"):
        rows = _read_table(text, source, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".jsonl", ".ndjson"):
        rows = _read_json_lines(text, source)
    else:
        rows = _read_lines(text, source)
    return [row if isinstance(row, _Found) else _scene_of_row(*row, base, allow_remote) for row in rows]


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
    if source.lower().endswith(SUFFIXES):
        raise ValueError(f"{source}: expected a list of scenes, found a GeoTIFF: name it by --frames, or in a list.")
    try:
        return Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: expected text in UTF-8, found other bytes ({error}).") from error


_Row = tuple[str | None, Sequence[Any], str]


def _broken(origin: str, problem: str) -> _Found:
    """A scene of which no frame is known, called after its place in the list."""
    return _Found(origin.rpartition(", ")[2], (), origin, problem=f"{origin}: {problem}")


def _read_lines(text: str, source: str) -> Iterator[_Row | _Found]:
    """Read a text list."""
    for number, line in enumerate(text.splitlines(), start=1):
        origin = f"{source}, line {number}"
        try:
            frames = shlex.split(line, comments=True)
        except ValueError as error:
            yield _broken(origin, f"expected paths, quoted where they hold blanks, found {line!r} ({error}).")
            continue
        if frames:
            yield None, frames, origin


def _read_table(text: str, source: str, delimiter: str) -> Iterator[_Row | _Found]:
    """Read a CSV with a header."""
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{source}: expected a table with a header, found another form ({error}).") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    columns = [index for index, name in enumerate(header) if name.startswith("frame")]
    if not columns:
        raise ValueError(
            f"{source}: expected a header with columns frame_1, frame_2, ... (and name), found {header}. Add one."
        )
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        origin = f"{source}, row {number}"
        if len(row) != len(header):
            yield _broken(origin, f"expected {len(header)} columns as in the header, found {len(row)}.")
            continue
        name = row[header.index("name")].strip() if "name" in header else ""
        yield name or None, [row[index].strip() for index in columns if row[index].strip()], origin


def _read_json_lines(text: str, source: str) -> Iterator[_Row | _Found]:
    """Read one JSON object a line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _read_json_line(line, f"{source}, line {number}")


def _read_json_line(line: str, origin: str) -> _Row | _Found:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _broken(origin, f"expected JSON, found something else ({error}).")
    if not isinstance(row, dict) or not isinstance(row.get("frames"), list):
        return _broken(origin, f'expected an object such as {{"frames": ["a.tif"], "name": "a"}}, found {line[:80]}.')
    if not isinstance(row.get("name", ""), str | None):
        return _broken(origin, f"expected a text as name, found {row['name']!r}.")
    return row.get("name") or None, row["frames"], origin


def _parse_json(text: str, origin: str) -> Any:
    """Parse JSON of unknown origin."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin}: expected JSON, found something else ({error}).") from error


def _scene_of_row(name: str | None, frames: Sequence[Any], origin: str, base: str, allow_remote: bool) -> _Found:
    """Check one row of a list and resolve its paths."""
    if not frames:
        return _broken(origin, "expected at least one frame, found none.")
    resolved: list[Frame] = []
    try:
        for frame in frames:
            if isinstance(frame, list) and frame:
                resolved.append(tuple(_resolve(part, origin, base, allow_remote) for part in frame))
            else:
                resolved.append(_resolve(frame, origin, base, allow_remote))
    except ValueError as error:
        # What was refused is not kept as a path: nothing shall ever open it.
        return _Found(name or origin.rpartition(", ")[2], (), origin, problem=str(error))
    return _Found(name, tuple(resolved), origin)


def _resolve(path: Any, origin: str, base: str, allow_remote: bool) -> str:
    """Turn what a list says into a local path or an allowed address."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{origin}: expected the path of a frame, found {path!r}.")
    _check_path(path, origin)
    if "://" not in path:
        return os.path.normpath(os.path.join(base, os.path.expanduser(path)))
    address = urlsplit(path)
    if address.scheme.lower() == "file" and address.netloc in ("", "localhost"):
        local = unquote(address.path)
        _check_path(local, origin)
        return os.path.normpath(local)
    if address.scheme.lower() not in _REMOTE_SCHEMES or not address.hostname:
        raise ValueError(f"{origin}: expected a local path or an http(s) address, found {path}. Download it first.")
    if not allow_remote:
        raise ValueError(
            f"{origin}: {path} is on another machine, and this list could name any: allow that with --allow_remote "
            "where you trust it, or download the files first."
        )
    return path


def _check_path(path: str, origin: str) -> None:
    """Refuse what GDAL or the system would take for something other than a file's path."""
    if "\0" in path or path.lstrip().lower().startswith("/vsi") or "::" in path:
        raise ValueError(
            f"{origin}: expected the path of a file, found {path!r}, a name of GDAL's own or none at all."
        )


def _list_folder(folder: str) -> list[str]:
    """Every GeoTIFF below a folder; links to folders are not followed, hidden names and `._` files are left out."""
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in paths if path.lower().endswith(SUFFIXES))


def _scenes_of_paths(paths: Sequence[str], num_frames: int, origin: str) -> list[_Found]:
    """Make scenes of files and granule folders."""
    files: list[str] = []
    for path in paths:
        files += _list_folder(path) if os.path.isdir(path) else [path]
    band_files, broken = _find_band_files(files, origin)
    if not band_files:
        known = {path for scene in broken for path in scene.frames}
        return broken + [_Found(None, (file,), origin) for file in files if file not in known]
    known = {path for paths in band_files.values() for path in paths}
    others = sorted(set(files) - known - {path for scene in broken for path in scene.frames})
    if others:
        warnings.warn(
            f"{origin}: {len(others)} GeoTIFFs are left out, e.g. {os.path.basename(others[0])}: their names are not "
            "those of a band of a granule, as the others' are.",
            stacklevel=4,
        )
    granules = [_named_granule(name, paths, origin) for name, paths in sorted(band_files.items())]
    return _scenes_of_granules(granules, num_frames) + broken


def _find_band_files(paths: Sequence[str], origin: str) -> tuple[dict[str, list[str]], list[_Found]]:
    """Sort files of one band by granules; those that cannot be of any date are scenes that cannot be mapped."""
    granules: dict[str, list[str]] = {}
    broken: list[_Found] = []
    for path in paths:
        try:
            file = parse_band_file(path)
        except ValueError as error:
            broken.append(_Found(None, (path,), origin, problem=str(error)))
            continue
        if file is not None:
            granules.setdefault(file.name.granule, []).append(path)
    return granules, broken


def _named_granule(name: str, paths: Sequence[str], origin: str) -> _Granule:
    """Take over what the names of band files say."""
    file, problem = parse_band_file(paths[0]).name, None
    try:
        paths = [file.path for file in group_granules(paths)[0].files]
    except ValueError as error:
        problem = str(error)
    return _Granule(name, f"T{file.tile}", file.date.isoformat(), tuple(paths), origin, problem)


def _scenes_of_granules(granules: Sequence[_Granule], num_frames: int) -> list[_Found]:
    """One scene a granule for models of one frame, else one a tile with all its dates."""
    if num_frames == 1:
        return [
            _Found(one.name, (one.frame,), one.origin, (one.date,) if one.date else None, one.problem)
            for one in granules
        ]
    tiles: dict[str, list[_Granule]] = {}
    for granule in granules:
        tiles.setdefault(granule.tile or granule.name, []).append(granule)
    return [_scene_of_tile(tile, sorted(dates, key=lambda one: one.date), num_frames) for tile, dates in tiles.items()]


def _scene_of_tile(tile: str, granules: Sequence[_Granule], num_frames: int) -> _Found:
    """Make the dates of a tile one scene; which of too many dates are meant is not guessed."""
    days = [granule.date[:10] for granule in granules]
    problem = next((granule.problem for granule in granules if granule.problem), None)
    if problem is None and len(granules) != num_frames:
        problem = (
            f"the model takes {num_frames} frames, tile {tile} has {len(granules)} ({', '.join(days[:12])}"
            f"{', ...' if len(days) > 12 else ''}): list the dates that belong together, one scene per line."
        )
    frames = tuple(granule.frame for granule in granules)
    name = "_".join([tile, *([days[0], days[-1]] if days[0] else [])])
    dates = tuple(granule.date for granule in granules)
    return _Found(name, frames, granules[0].origin, dates if all(dates) else None, problem)


def _read_stac(text: str, source: str, base: str, allow_remote: bool) -> list[_Granule]:
    """Read the items of a STAC item collection: plain JSON, of which only a few members matter here."""
    collection = _parse_json(text, source)
    if isinstance(collection, dict) and collection.get("type") == "Feature":
        collection = {"type": "FeatureCollection", "features": [collection]}
    items = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(items, list) or collection.get("type") != "FeatureCollection":
        raise ValueError(
            f"{source}: expected a STAC item collection, an object of type FeatureCollection with features, found "
            "another. Save the result of a search as one, e.g. `items.save_object(...)` of pystac."
        )
    return [
        _stac_granule(item, f"{source}, item {number}", base, allow_remote) for number, item in enumerate(items, 1)
    ]


def _stac_granule(item: Any, origin: str, base: str, allow_remote: bool) -> _Granule:
    """Read one item."""
    is_item = isinstance(item, dict) and isinstance(item.get("assets"), dict) and isinstance(item.get("id"), str)
    if not is_item or not isinstance(item.get("properties"), dict):
        problem = f"{origin}: expected a STAC item with id, properties and assets, found none."
        return _Granule(origin.rpartition(", ")[2], None, "", (), origin, problem)
    origin, properties, problem = f"{origin} ({item['id'][:60]})", item["properties"], None
    hrefs = [asset["href"] for asset in item["assets"].values() if _is_pixel_asset(asset)]
    try:
        files = tuple(_resolve(href, origin, base, allow_remote) for href in hrefs)
        known = parse_hls_name(item["id"])
    except ValueError as error:
        return _Granule(item["id"], None, _stac_date(properties), (), origin, str(error))
    if not files:
        problem = f"{origin}: expected assets that are GeoTIFFs, found {sorted(item['assets'])[:20]}."
    tiles = [properties[name] for name in _TILE_PROPERTIES if isinstance(properties.get(name), str)]
    tile = f"T{known.tile}" if known is not None else next(iter(tiles), None)
    return _Granule(item["id"], tile, _stac_date(properties), files, origin, problem)


def _stac_date(properties: Mapping[str, Any]) -> str:
    """The date of an item as text that sorts."""
    date = properties.get("datetime") or properties.get("start_datetime")
    return date if isinstance(date, str) else ""


def _is_pixel_asset(asset: Any) -> bool:
    """Whether an asset is a GeoTIFF of data, by what the item says about it."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return False
    roles, media = asset.get("roles"), asset.get("type")
    if isinstance(roles, list) and _NO_DATA_ROLES & {role for role in roles if isinstance(role, str)}:
        return False
    named = urlsplit(asset["href"]).path.lower().endswith(SUFFIXES)
    return media.lower().startswith("image/tiff") if isinstance(media, str) else named


def plain_name(text: str) -> str:
    """Make a file name of any text: letters, digits, `_`, `-` and `.`, not hidden, and not too long.

    Args:
        text: Name of a scene, of unknown origin.

    Returns:
        A name without suffix, at most 120 bytes, that means neither folder nor option.
    """
    name = re.sub(r"[^\w.-]+", "_", text).lstrip(".-") or "scene"
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


def _with_unique_names(found: Sequence[_Found], source: str) -> list[SceneEntry]:
    """Give every scene a plain file name of its own, whatever the case of letters means to a file system."""
    names = [_name_of(scene, 1) for scene in found]
    for depth in (2, 3, 4):
        names = [
            name if scene.given_name or count == 1 else _name_of(scene, depth)
            for scene, name, count in zip(found, names, _counts(names), strict=True)
        ]
    doubles = sorted({name for name, count in zip(names, _counts(names), strict=True) if count > 1})
    if doubles:
        origins = [
            scene.origin for scene, name in zip(found, names, strict=True) if name.lower() == doubles[0].lower()
        ]
        raise ValueError(
            f"{source}: expected a name of its own for every scene, found {doubles[0]} more than once ({origins[0]}; "
            f"{origins[1]}), which would be one output. Name the scenes in a CSV or JSON lines list."
        )
    return [
        SceneEntry(name, scene.frames, scene.origin, scene.dates, scene.problem)
        for name, scene in zip(names, found, strict=True)
    ]


def _counts(names: Sequence[str]) -> list[int]:
    """How often each name occurs."""
    counter = Counter(name.lower() for name in names)
    return [counter[name.lower()] for name in names]


def _name_of(scene: _Found, depth: int) -> str:
    """The name that is given, or the last parts of the first file's path."""
    if scene.given_name:
        return plain_name(scene.given_name)
    first = scene.frames[0] if isinstance(scene.frames[0], str) else scene.frames[0][0]
    path = PurePosixPath(urlsplit(first).path if "://" in first else first)
    return plain_name("_".join([*path.parts[-depth:-1], path.stem]))


__all__ = ["MAX_LIST_BYTES", "SceneEntry", "list_scenes", "plain_name"]
