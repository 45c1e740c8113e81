# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where collections are found: the STAC API of each, the ids there, and how addresses are signed."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


EARTHDATA_STAC = "https://cmr.earthdata.nasa.gov/stac/LPCLOUD"
PLANETARY_COMPUTER_STAC = "https://planetarycomputer.microsoft.com/api/stac/v1"
PLANETARY_COMPUTER_SIGN = "https://planetarycomputer.microsoft.com/api/sas/v1/token"


@dataclass(frozen=True)
class Source:
    """A catalog and what is searched in it.

    Attributes:
        stac: address of the STAC API.
        collections: ids of collections there.
        sign: address of the endpoint that gives, for `sign`/COLLECTION, a token that signs addresses; "" for none.
    """

    stac: str
    collections: tuple[str, ...]
    sign: str = ""


SOURCES = {
    "hls": Source(EARTHDATA_STAC, ("HLSL30_2.0", "HLSS30_2.0")),
    "sentinel-2-l2a": Source(PLANETARY_COMPUTER_STAC, ("sentinel-2-l2a",), PLANETARY_COMPUTER_SIGN),
    "landsat-c2-l2": Source(PLANETARY_COMPUTER_STAC, ("landsat-c2-l2",), PLANETARY_COMPUTER_SIGN),
}
"""What is searched for each collection that has a name here, unless another STAC API is given."""


def choose_source(collections: Sequence[str], stac: str | None = None, sign: str | None = None) -> Source:
    """Find out what is searched.

    Args:
        collections: names of `SOURCES`, or, with `stac`, ids of collections there.
        stac: another STAC API; names of `SOURCES` then stand for their ids.
        sign: another endpoint for tokens that sign addresses.

    Raises:
        ValueError: no collection, one without a known place, several that are in several places, or an address that
            is not one.
    """
    if not collections:
        raise ValueError(f"Expected at least one collection, found none. Give one of {', '.join(SOURCES)}.")
    for name, address in (("stac", stac), ("sign", sign)):
        if address is not None:
            try:
                parts = urlsplit(address)
                is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            except ValueError:
                is_address = False
            if not is_address:
                raise ValueError(
                    f"Expected the http or https address of an API as --{name}, found {address!r}. Correct it."
                )
            if parts.username or parts.password:
                raise ValueError(
                    f"Expected --{name} without user name and password, which would be kept. Put a token into the "
                    "environment as STAC_TOKEN."
                )
    if stac is not None:
        ids = [one for name in collections for one in (SOURCES[name].collections if name in SOURCES else (name,))]
        is_known = urlsplit(stac).hostname == urlsplit(PLANETARY_COMPUTER_STAC).hostname
        return Source(
            stac.rstrip("/"), tuple(dict.fromkeys(ids)), sign or (PLANETARY_COMPUTER_SIGN if is_known else "")
        )
    unknown = [name for name in collections if name not in SOURCES]
    if unknown:
        raise ValueError(
            f"Expected collections of {', '.join(SOURCES)}, found {', '.join(unknown)}. Name the catalog that has "
            "it by --stac."
        )
    found = [SOURCES[name] for name in collections]
    if len({source.stac for source in found}) > 1:
        raise ValueError(
            f"Expected collections of one catalog, found {', '.join(collections)}, which are in several. Fetch them "
            "one after the other."
        )
    ids = [one for source in found for one in source.collections]
    return Source(found[0].stac, tuple(dict.fromkeys(ids)), sign or found[0].sign)
