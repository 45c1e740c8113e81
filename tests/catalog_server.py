# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A STAC API with its assets on the loopback interface: pages, ranges, tokens, signatures, and faults on request."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from rasterio.warp import transform_bounds, transform_geom

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.warping import Grid
from prithvi_hf.rasters.write_geotiff import write_geotiff
from tests.granule_factory import (
    HLS_TRANSFORM,
    LANDSAT_8,
    ZONE_10,
    write_hls_granule,
    write_sentinel2,
)


TOKEN = "a-token-that-must-not-be-kept"
SIGNATURE = "a-signature-that-must-not-be-kept"
DROP, SLOW, CORRUPT, HELD = "drop", "slow", "corrupt", "held"


class CatalogServer:
    """A running server.

    Attributes:
        items: members of every item, in any order.
        page: items on one page of a search.
        faults: path of a file below `folder`, or "search" or "sign", to faults that come one by one: a status, `DROP`
            in the middle, `SLOW` by half a second, `HELD` until `release` is set, `CORRUPT` bytes; None is no fault.
        always: the same, at each request.
        token: bearer token that files need, if any.
        is_signing: whether files need a signature, which `/sign/COLLECTION` gives.
        with_ranges: whether parts of files are given.
        requests: method, path and headers of each request.
        searches: body of each search.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.items, self.page = folder, list[dict[str, Any]](), 100
        self.faults: dict[str, list] = {}
        self.always: dict[str, Any] = {}
        self.token, self.is_signing, self.with_ranges = "", False, True
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.searches: list[dict[str, Any]] = []
        self.lock, self.release = threading.Lock(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.catalog = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def stac(self) -> str:
        return f"{self.address}/stac"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_fault(self, name: str) -> Any:
        with self.lock:
            waiting = self.faults.get(name)
            return waiting.pop(0) if waiting else self.always.get(name)

    def asked(self, part: str) -> list[str]:
        """Paths with a part that were asked for."""
        return [path for _, path, _ in self.requests if part in path]

    def add(self, collection: str, name: str, paths: Sequence[Path], date: str, **properties: Any) -> dict[str, Any]:
        """Add an item whose assets are files below `folder`."""
        raster = GeoTiffRaster(paths[0])
        bounds = transform_bounds(raster.crs, "EPSG:4326", *Grid.of(raster).bounds)
        left, bottom, right, top = Grid.of(raster).bounds
        ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
        geometry = transform_geom(raster.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        assets = {
            path.stem.split(".")[-1]: {
                "href": f"{self.address}/files/{path.relative_to(self.folder)}",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
            }
            for path in paths
        }
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": collection,
            "bbox": list(bounds),
            "geometry": geometry,
            "properties": {"datetime": date, **properties},
            "assets": assets,
            "links": [{"rel": "self", "href": f"{self.stac}/collections/{collection}/items/{name}?token={TOKEN}"}],
        }
        self.items.append(item)
        return item

    def add_hls(self, day: Sequence[int], sensor: str = "S30", clouds: float = 5, **options: Any) -> dict[str, Any]:
        """Add a granule of HLS, see `write_hls_granule`."""
        granule = write_hls_granule(self.folder, sensor, day, **options)
        date = "{}-{:02}-{:02}T18:49:21Z".format(*day)
        files = sorted(granule.iterdir())
        return self.add(f"HLS{sensor}_2.0", granule.name, files, date, **{"eo:cloud_cover": clouds})

    def add_landsat(
        self, day: str, reflectance: float = 0.1, clouds: float = 5, quality: int = 1 << 6
    ) -> dict[str, Any]:
        """Add a Landsat scene of one reflectance, whose first column is nodata."""
        name = f"LC08_L2SP_044034_{day.replace('-', '')}_20210518_02_T1"
        paths = []
        for code in (*LANDSAT_8.values(), "QA_PIXEL"):
            number = quality if code == "QA_PIXEL" else round((reflectance + 0.2) / 0.0000275)
            values = np.full((72, 90), number, dtype=np.uint16)
            values[:, 0] = 1 if code == "QA_PIXEL" else 0
            paths.append(self.folder / name / f"{name}_{code}.TIF")
            paths[-1].parent.mkdir(exist_ok=True)
            nodata = 1 if code == "QA_PIXEL" else 0
            write_geotiff(paths[-1], values, crs=ZONE_10, transform=HLS_TRANSFORM, nodata=nodata)
        properties = {"eo:cloud_cover": clouds, "platform": "landsat-8"}
        return self.add("landsat-c2-l2", name.replace("_20210518", ""), paths, f"{day}T18:40:00Z", **properties)

    def add_sentinel2(self, day: str, number: int = 2000, scl: int = 4, **properties: Any) -> dict[str, Any]:
        """Add a Sentinel-2 product of one number, bands of 10 and 20 m, with short names in a folder of its own."""
        name = f"S2A_10SGJ_{day.replace('-', '')}_0_L2A"
        codes = {"B02": 216, "B03": 216, "B04": 216, "B8A": 108, "B11": 108, "B12": 108}
        bands = {code: np.full((side, side), number, dtype=np.uint16) for code, side in codes.items()}
        folder = self.folder / "tiles" / name
        paths = write_sentinel2(folder, bands, name="X", suffix="", extent=2160.0, nodata=0)
        paths += write_sentinel2(
            folder, {"SCL": np.full((108, 108), scl, dtype=np.uint8)}, name="X", suffix="", extent=2160.0, nodata=0
        )
        paths = [path.rename(path.with_name(path.name.removeprefix("X_"))) for path in paths]
        facts = {"constellation": "sentinel-2", "platform": "sentinel-2a", "s2:processing_baseline": "05.09"}
        return self.add(
            "sentinel-2-l2a", name, paths, f"{day}T18:49:21Z", **{**facts, "eo:cloud_cover": 5, **properties}
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        catalog: CatalogServer = self.server.catalog
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        catalog.requests.append((self.command, self.path, dict(self.headers)))
        path = unquote(urlsplit(self.path).path)
        if path.rstrip("/") == "/stac":
            self._send_json(self._describe(catalog))
        elif path == "/stac/search":
            fault = catalog.next_fault("search")
            self._send_json({"error": "later"}, fault) if fault else self._send_json(self._search(catalog, body))
        elif path.startswith("/sign/"):
            fault = catalog.next_fault("sign")
            token = {"token": f"se=2099&sig={SIGNATURE}", "msft:expiry": "2099-01-01T00:00:00Z"}
            self._send_json({} if fault else token, fault or 200)
        else:
            self._send_file(catalog, path.removeprefix("/files/"))

    def _describe(self, catalog: CatalogServer) -> dict[str, Any]:
        core = "https://api.stacspec.org/v1.0.0"
        links = [{"rel": "self", "href": catalog.stac}, {"rel": "root", "href": catalog.stac}]
        search = {"rel": "search", "href": f"{catalog.stac}/search", "type": "application/geo+json"}
        links += [{**search, "method": method} for method in ("GET", "POST")]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "test",
            "description": "test",
            "conformsTo": [f"{core}/core", f"{core}/item-search"],
            "links": links,
        }

    def _search(self, catalog: CatalogServer, body: dict[str, Any]) -> dict[str, Any]:
        catalog.searches.append(body)
        west, south, east, north = body["bbox"]

        def is_beside(box: Sequence[float]) -> bool:
            """Whether a box and the one that is searched share longitudes; west is greater across the antimeridian."""
            sides = [(box[0], box[2])] if box[0] <= box[2] else [(box[0], 180.0), (-180.0, box[2])]
            return any(first <= east and last >= west for first, last in sides)

        first, _, last = body["datetime"].partition("/")
        found = [
            item
            for item in catalog.items
            if item["collection"] in body["collections"]
            and is_beside(item["bbox"])
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
            and first[:10] <= item["properties"]["datetime"][:10] <= (last or first)[:10]
        ]
        start = int(body.get("token", 0))
        page = found[start : start + catalog.page]
        links = []
        if start + catalog.page < len(found):
            more = {**body, "token": str(start + catalog.page)}
            links.append({"rel": "next", "href": f"{catalog.stac}/search", "method": "POST", "body": more})
        return {"type": "FeatureCollection", "features": page, "links": links}

    def _send_json(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(text)

    def _send_file(self, catalog: CatalogServer, name: str) -> None:
        file = catalog.folder / name
        fault = catalog.next_fault(name)
        is_signed = parse_qs(urlsplit(self.path).query).get("sig") == [SIGNATURE]
        if catalog.token and self.headers.get("Authorization") != f"Bearer {catalog.token}":
            fault = 401
        if catalog.is_signing and not is_signed:
            fault = 403
        if not isinstance(fault, int) and not file.is_file():
            fault = 404
        if isinstance(fault, int):
            self._send_json({}, fault)
            return
        content = file.read_bytes()
        if fault == CORRUPT:  # the header stays sound, the pixels do not
            content = content[:400] + bytes(byte ^ 0x5A for byte in content[400:])
        if fault == SLOW:
            time.sleep(0.5)
        if fault == HELD:
            catalog.release.wait(120)
        status, part = 200, content
        if catalog.with_ranges and self.headers.get("Range"):
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            status, part = 206, content[first : last + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if fault == DROP:
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[CatalogServer]:
    """A running catalog without items, whose files are in `tmp_path/catalog`."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    server = CatalogServer(folder)
    yield server
    server.close()


def find_bbox(rows: tuple[int, int] = (10, 40), columns: tuple[int, int] = (20, 60)) -> tuple[float, ...]:
    """The box of some pixels of the granules: west, south, east, north; a little less, for rounding."""
    left, top = HLS_TRANSFORM @ (columns[0], rows[0])
    right, bottom = HLS_TRANSFORM @ (columns[1], rows[1])
    return transform_bounds(ZONE_10, "EPSG:4326", left + 5, bottom + 5, right - 5, top - 5)


def read_all_text(folder: Path) -> bytes:
    """The bytes of every file below a folder, hidden ones too, and their names."""
    files: Mapping[str, bytes] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return b"\n".join(name.encode() + b"\n" + content for name, content in files.items())
