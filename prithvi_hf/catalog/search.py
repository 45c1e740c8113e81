# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A search in a STAC API: a bounding box and dates in, items that are worth a download out."""

import calendar
import datetime
import math
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

import numpy as np
from affine import Affine
from rasterio.features import is_valid_geom, rasterize

from prithvi_hf.catalog.access import Credentials, hide_secrets
from prithvi_hf.catalog.providers import Source
from prithvi_hf.disk import plain_name
from prithvi_hf.models.prithvi.coordinates_prithvi import parse_date
from prithvi_hf.rasters.granules import LayerFile, StatedFile, parse_layer
from prithvi_hf.rasters.stac_assets import escape, is_imagery, state_asset


Box = tuple[float, float, float, float]
"""West, south, east and north in degrees; west is less than east."""

MAX_ITEMS = 2_000
_PAGE_ITEMS = 100
_TIMEOUT_SECONDS = 60
_FOOTPRINT_PIXELS = 64  # along a side of the box, to see what items cover


@dataclass(frozen=True)
class AssetFile:
    """The file of one layer of an item.

    Attributes:
        name: of the file here, as it was published.
        layer: what that name says, in the folder of its item.
        href: its address; what the catalog says of its bands goes with it.
        members: of the asset: size, checksum, shape.
    """

    name: str
    layer: LayerFile
    href: StatedFile = field(repr=False)  # a catalog may have signed it
    members: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class CatalogItem:
    """An item of a catalog: one granule.

    Attributes:
        id: its id.
        collection: id of its collection.
        folder: plain name of the folder that its files get.
        date: of acquisition, UTC.
        cloud_cover: percent; None where the item does not say.
        platform, processing_version: what the item says, or "".
        files: the files of its layers.
        geometry: what it covers, as GeoJSON.
        address: of the item itself, without a signature; "" where the catalog does not say.
    """

    id: str
    collection: str
    folder: str
    date: datetime.datetime
    cloud_cover: float | None
    platform: str
    processing_version: str
    files: tuple[AssetFile, ...]
    geometry: Any = field(repr=False)
    address: str = ""

    @property
    def granule(self) -> str:
        """What names the granule, whichever version of it this is."""
        return self.files[0].layer.granule

    @property
    def sensor(self) -> str:
        """Product and sensor, such as "HLS S30"."""
        return f"{self.files[0].layer.product} {self.files[0].layer.sensor}"


@dataclass(frozen=True)
class Acquisition:
    """What one sensor saw of a place on one day: granules of one tile, or of several."""

    day: datetime.date
    sensor: str
    items: tuple[CatalogItem, ...]
    clear: float = 0.0  # fraction of the place that is covered, less its clouds

    @property
    def name(self) -> str:
        """A plain name: `HLS_S30_2022-06-01`."""
        return f"{self.sensor.replace(' ', '_')}_{self.day.isoformat()}"


def parse_dates(text: str) -> tuple[datetime.date, datetime.date]:
    """Read `FROM/TO` or one date; each is YYYY-MM-DD, or YYYY-MM for a whole month.

    Raises:
        ValueError: another form, dates that do not exist, or the first one after the second.
    """
    parts = text.strip().split("/")
    days: list[tuple[datetime.date, datetime.date]] = []
    for part in parts:
        found = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", part)
        try:
            if found is None or len(parts) > 2:
                raise ValueError
            year, month = int(found[1]), int(found[2])
            first, last = (int(found[3]),) * 2 if found[3] else (1, calendar.monthrange(year, month)[1])
            days.append((datetime.date(year, month, first), datetime.date(year, month, last)))
        except (ValueError, calendar.IllegalMonthError) as error:
            raise ValueError(
                f"dates: expected FROM/TO or one date, such as 2022-06-01/2022-06-30, 2022-06-14 or 2022-06, found "
                f"{text!r}. Correct it."
            ) from error
    if days[0][0] > days[-1][1]:
        raise ValueError(f"dates: expected the earlier date first, found {text!r}. Exchange the two.")
    return days[0][0], days[-1][1]


def parse_bbox(bbox: Sequence[float]) -> tuple[Box, ...]:
    """Check a bounding box, and divide one that crosses the antimeridian, whose west is greater than its east.

    Args:
        bbox: west, south, east and north in degrees (WGS 84).

    Returns:
        One box, or the two on both sides of the antimeridian.

    Raises:
        ValueError: not four numbers, numbers out of range, or a box without area.
    """
    wanted = "bbox: expected west, south, east and north in degrees (-180 to 180 and -90 to 90)"
    if len(bbox) != 4 or not all(math.isfinite(number) for number in bbox):
        raise ValueError(f"{wanted}, found {list(bbox)}. Give four numbers.")
    west, south, east, north = map(float, bbox)
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        hint = " Are these metres of a projection?" if max(map(abs, bbox)) > 360 else ""
        raise ValueError(f"{wanted}, found {list(bbox)}. Correct them.{hint}")
    if south >= north or west == east:
        remedy = "Give the southern edge first" if south > north else "Give a box with an area"
        raise ValueError(f"{wanted}, found {list(bbox)}. {remedy}.")
    if west < east:
        return ((west, south, east, north),)
    sides = ((west, south, 180.0, north), (-180.0, south, east, north))
    return tuple(side for side in sides if side[0] < side[2])


def search_items(
    source: Source, credentials: Credentials, boxes: Sequence[Box], dates: tuple[datetime.date, datetime.date]
) -> list[dict[str, Any]]:
    """Ask a STAC API for all items of a place and of dates, page by page; each comes once, as it is there.

    Raises:
        ValueError: the address is not that of a STAC API, it has no such collection, or there are more than
            `MAX_ITEMS`.
        OSError: the API cannot be reached or refuses.
        ImportError: pystac-client is not installed.
    """
    try:
        from pystac import STACError
        from pystac_client import Client
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
        from pystac_client.warnings import PystacClientWarning
    except ImportError as error:
        raise ImportError(
            f"Expected pystac-client for a search in a catalog, found none ({error}). Install the extra: pip install "
            '"prithvi_hf[fetch]".'
        ) from error

    io = StacApiIO(timeout=_TIMEOUT_SECONDS)
    io.session = credentials.make_session()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        with warnings.catch_warnings():  # of links and conformance classes that an API does not list
            warnings.simplefilter("ignore", PystacClientWarning)
            client = Client.open(source.stac, stac_io=io)
            for box in boxes:
                search = client.search(
                    collections=list(source.collections),
                    bbox=box,
                    datetime="/".join(day.isoformat() for day in dates),
                    limit=_PAGE_ITEMS,
                    max_items=MAX_ITEMS + 1,  # however many pages a server gives
                )
                for item in search.items_as_dicts():
                    found.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    except APIError as error:
        status = getattr(error, "status_code", None)
        # The text of an answer may be a whole page, that of an error all retries.
        said = f"status {status}" if status else "no answer"
        detail = " ".join(str(error).split())[:300]
        remedy = "Try again later, or check the address (--stac) and the collection."
        if status in (401, 403):
            remedy = "It needs a token: put one into the environment as STAC_TOKEN."
        raise OSError(f"{source.stac}: expected the answer of a STAC API, found {said} ({detail}). {remedy}") from None
    except (STACError, ClientTypeError, PystacClientWarning, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source.stac}: expected a STAC API that can be searched, found another answer ({type(error).__name__}: "
            f"{str(error)[:200]}). Check the address (--stac)."
        ) from None
    if len(found) > MAX_ITEMS:
        raise ValueError(
            f"{source.stac}: expected at most {MAX_ITEMS:,} items, found more. Give a smaller box or fewer dates, and "
            "fetch the parts one after the other."
        )
    return list(found.values())


def read_item(members: Any) -> CatalogItem:
    """Take from an item what matters here: its granule and the files of its layers, by their published names.

    Raises:
        ValueError: an item without an id, a date or assets, or whose files are not named as HLS, Sentinel-2 or Landsat
            files are; or one that contradicts itself.
    """
    item = members if isinstance(members, dict) else {}
    name, assets, properties = item.get("id"), item.get("assets"), item.get("properties")
    if not isinstance(name, str) or not isinstance(assets, dict) or not isinstance(properties, dict):
        raise ValueError(f"{str(name)[:60]}: expected a STAC item with id, properties and assets, found none.")
    moment = parse_date(properties.get("datetime") or properties.get("start_datetime"))
    if moment is None:
        raise ValueError(f"{name[:60]}: expected a date in the item, found none.")
    links = [link for link in item.get("links") or () if isinstance(link, dict) and link.get("rel") == "self"]
    own = str(links[0].get("href", "")) if links else ""
    files = []
    for key, asset in assets.items():
        if not is_imagery(asset):
            continue
        address = urljoin(own, asset["href"])  # which may be relative to the item's own
        layer = parse_layer(address)
        if layer is None or layer.layer is None or not address.lower().startswith(("http://", "https://")):
            continue
        stated = state_asset(key, asset, properties, address, f"item {name[:60]}")
        href = stated if isinstance(stated, StatedFile) else StatedFile(address)
        base = plain_name(address.split("?")[0].rpartition("/")[2])
        files.append(AssetFile(base, layer, href, asset))
    if not files:
        raise ValueError(
            f"{name[:60]}: expected GeoTIFFs at http addresses, named as layers of HLS, Sentinel-2 or Landsat, found "
            f"{', '.join(sorted(map(str, assets))[:12]) or 'no assets'}. Choose another collection or catalog."
        )
    folder, named = _name_folder(name, files), []
    for file in files:
        local = parse_layer(f"{folder}/{file.name}")
        if local is None or (local.layer, local.product) != (file.layer.layer, file.layer.product):
            raise ValueError(f"{name[:60]}: expected files named after one product, found {folder}/{file.name}.")
        named.append(replace(file, layer=local))
    clouds = properties.get("eo:cloud_cover")
    version = next(
        (
            properties[key]
            for key in ("s2:processing_baseline", "processing:version", "landsat:correction", "version")
            if properties.get(key)
        ),
        "",
    )
    return CatalogItem(
        id=escape(name),
        collection=str(item.get("collection") or ""),
        folder=folder,
        date=moment,
        cloud_cover=float(clouds) if isinstance(clouds, int | float) and math.isfinite(clouds) else None,
        platform=escape(str(properties.get("platform") or "")),
        processing_version=escape(str(version)),
        files=tuple(named),
        geometry=item.get("geometry"),
        address=hide_secrets(own),
    )


def _name_folder(name: str, files: Sequence[AssetFile]) -> str:
    """Name the folder of an item so that its files are known by it: after the item, or the folder that they are in."""
    first = files[0]
    for candidate in (name, *first.href.path.split("?")[0].split("/")[-2:0:-1]):
        plain = plain_name(candidate)
        local = parse_layer(f"{plain}/{first.name}")
        if local is not None and local.granule == first.layer.granule:
            return plain
    return plain_name(name)


def choose_items(
    items: Sequence[CatalogItem], boxes: Sequence[Box], max_cloud: float | None = None, best: int | None = None
) -> tuple[list[Acquisition], dict[str, str]]:
    """Choose among items, and put those of one sensor and day together.

    Of several versions of a granule the newest one stays. The best days are those that show most of the box without
    clouds, by the footprints and the cloud cover of items.

    Args:
        items: from `read_item`.
        boxes: the place.
        max_cloud: largest cloud cover of an item, in percent; items that do not say theirs are left out then.
        best: how many acquisitions to choose; None for all.

    Returns:
        The acquisitions in time order, and id and reason of each item that was left out.

    Raises:
        ValueError: `max_cloud` is not a percentage, or `best` is less than 1.
    """
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise ValueError(f"max_cloud: expected percent, 0 to 100, found {max_cloud:g}.")
    if best is not None and best < 1:
        raise ValueError(f"best: expected at least 1, found {best}.")
    left_out: dict[str, str] = {}
    granules: dict[str, CatalogItem] = {}
    for item in items:
        if max_cloud is not None and (item.cloud_cover is None or item.cloud_cover > max_cloud):
            known = "unknown" if item.cloud_cover is None else f"{item.cloud_cover:g} %"
            left_out[item.id] = f"cloud cover {known}"
            continue
        other = granules.setdefault(item.granule, item)
        if other is not item:
            newest, older = sorted((item, other), key=lambda one: (one.processing_version, one.id), reverse=True)
            granules[item.granule] = newest
            left_out[older.id] = f"another version of {newest.id}"
    days: dict[tuple[datetime.date, str], list[CatalogItem]] = {}
    for item in granules.values():
        days.setdefault((item.date.date(), item.sensor), []).append(item)
    found = [
        Acquisition(day, sensor, tuple(sorted(group, key=lambda one: one.id)), _find_clear(group, boxes))
        for (day, sensor), group in days.items()
    ]
    if best is not None:
        ranked = sorted(found, key=lambda one: (-round(one.clear, 4), one.day, one.sensor))
        for rest in ranked[best:]:
            left_out |= {item.id: "not among the best" for item in rest.items}
        found = ranked[:best]
    return sorted(found, key=lambda one: (one.day, one.sensor)), left_out


def _find_clear(items: Sequence[CatalogItem], boxes: Sequence[Box]) -> float:
    """Find which fraction of a place items show without clouds, by what they say of themselves."""
    clear, area = 0.0, 0.0
    for box in boxes:
        west, south, east, north = box
        side = _FOOTPRINT_PIXELS
        picture = np.zeros((side, side))
        transform = Affine((east - west) / side, 0.0, west, 0.0, (south - north) / side, north)
        for item in items:
            value = 1 - (item.cloud_cover or 0) / 100
            covered = np.ones(picture.shape)  # of an item without a geometry, or a wrong one
            with suppress(ValueError, TypeError, AttributeError, KeyError, IndexError):
                if is_valid_geom(item.geometry):
                    covered = rasterize([item.geometry], picture.shape, transform=transform, all_touched=True)
            picture = np.maximum(picture, covered * value)
        clear += float(picture.mean()) * (east - west)
        area += east - west
    return clear / area
