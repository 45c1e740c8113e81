# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Band names: what a raster's band descriptions mean, and where in it the bands are that a model needs.

Names are compared without regard to case, zero padding and separators, so `B2`, `b02` and `Band_02` are one code and
`SWIR 1`, `swir-1` and `SWIR_1` are one name. The same code means different bands on different sensors (`B05` is a red
edge on Sentinel-2 and the near infrared on Landsat 8/9 and HLS L30), so the sensor is chosen from all descriptions of
a file together, and a file that could be read in two ways is refused.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple


CANONICAL_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD", "NIR_NARROW"),
    *("WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "PANCHROMATIC", "THERMAL_INFRARED_1", "THERMAL_INFRARED_2"),
)

_FIRST_CODES = ("b1", "b2", "b3", "b4")  # alike on both sensors; from B05 on the codes conflict
SENSOR_BANDS: dict[str, dict[str, str]] = {
    "Sentinel-2 / HLS S30": dict(
        zip((*_FIRST_CODES, "b5", "b6", "b7", "b8", "b8a", "b9", "b10", "b11", "b12"), CANONICAL_BANDS, strict=False)
    ),
    "Landsat 8/9 / HLS L30": {
        **dict(zip(_FIRST_CODES, CANONICAL_BANDS, strict=False)),
        "b5": "NIR_NARROW",
        "b6": "SWIR_1",
        "b7": "SWIR_2",
        "b8": "PANCHROMATIC",
        "b9": "CIRRUS",
        "b10": "THERMAL_INFRARED_1",
        "b11": "THERMAL_INFRARED_2",
    },
}
"""Codes of each sensor's bands; those of Sentinel-2 are in the order of `CANONICAL_BANDS`."""
SENTINEL_2, LANDSAT = SENSOR_BANDS
# Only Sentinel-2 has the first pair. Landsat has a B8 and a B11 too (panchromatic, thermal), but a stack for
# segmentation seldom carries them, so these two speak for Sentinel-2 without deciding it.
_SENTINEL_2_CODES = frozenset({"b8a", "b12"})
_LIKELY_SENTINEL_2_CODES = frozenset({"b8", "b11"})

_SENSOR_WORDS = {
    **dict.fromkeys(("s2", "s2a", "s2b", "s2c", "s30", "sentinel2", "sentinel2a", "sentinel2b", "msi"), SENTINEL_2),
    **dict.fromkeys(("l30", "lc08", "lc09", "lo08", "l8", "l9", "landsat8", "landsat9", "oli", "sr", "st"), LANDSAT),
}

# A near infrared that says neither broad nor narrow serves as whichever of the two the file does not name otherwise.
_ANY_NIR = "NIR"
_NIRS = ("NIR_BROAD", "NIR_NARROW")
_PLAIN_NAMES = {
    **{re.sub(r"[^a-z0-9]", "", band.lower()): band for band in CANONICAL_BANDS},
    **dict.fromkeys(("coastal", "aerosol", "coastalblue", "ultrablue"), "COASTAL_AEROSOL"),
    **dict.fromkeys(("rededge071", "redge1", "vre1", "vegetationrededge1"), "RED_EDGE_1"),
    **dict.fromkeys(("rededge075", "redge2", "vre2", "vegetationrededge2"), "RED_EDGE_2"),
    **dict.fromkeys(("rededge078", "redge3", "vre3", "vegetationrededge3"), "RED_EDGE_3"),
    **dict.fromkeys(("broadnir", "nirwide", "widenir"), "NIR_BROAD"),
    **dict.fromkeys(("nir8", "narrownir", "nir8a"), "NIR_NARROW"),
    **dict.fromkeys(("nir", "nearinfrared", "nearir"), _ANY_NIR),
    **dict.fromkeys(("nir9", "watervapour"), "WATER_VAPOR"),
    **dict.fromkeys(("swir16", "shortwaveinfrared1"), "SWIR_1"),
    **dict.fromkeys(("swir22", "shortwaveinfrared2"), "SWIR_2"),
    **dict.fromkeys(("pan",), "PANCHROMATIC"),
    **dict.fromkeys(("tir1", "tirs1", "lwir11", "thermal1"), "THERMAL_INFRARED_1"),
    **dict.fromkeys(("tir2", "tirs2", "lwir12", "thermal2"), "THERMAL_INFRARED_2"),
}

_GENERIC = re.compile(r"(?:band|layer|channel|ch)?\s*[_\-.:#]*\s*\d+")
_CODE = re.compile(r"b(?:and)?0*(\d{1,2}a?)")
_WAVELENGTH_OR_SIZE = re.compile(r"\d+(?:nm|um|m)")


class BandLabel(NamedTuple):
    """What one band description says, before the sensor is known."""

    key: str  # the description as `band_key` writes it, for literal comparison
    code: str | None  # a sensor's band code such as `b8a`
    plain: str | None  # a sensor-independent meaning, a name of `CANONICAL_BANDS` or `NIR`
    sensor: str | None  # the sensor that the description itself names, a key of `SENSOR_BANDS`


def band_key(name: str) -> str:
    """Write a name as names are compared: `"swir1"`, `"b2"` and `"band2"` for `"SWIR_1"`, `"B02"` and `"Band 2"`."""
    joined = "".join(re.findall(r"[a-z0-9]+", name.lower()))
    return re.sub(r"(?<!\d)0+(?=\d)", "", joined)


def parse_band_description(description: str | None) -> BandLabel:
    """Read one band description, e.g. `"B8A"`, `"Blue (B02)"`, `"SR_B5"` or `"HLS.S30.T10SEH.2018190.v2.0.B05"`.

    An unknown text has neither code nor plain name.
    """
    text = (description or "").strip()
    key = band_key(text)
    if key in _PLAIN_NAMES:
        return BandLabel(key, None, _PLAIN_NAMES[key], None)
    words: list[str] = []
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        # `band`, `2` belong together, and so do `665`, `nm`.
        is_number = words and words[-1] in ("b", "band") and re.fullmatch(r"\d{1,2}a?", word)
        is_unit = words and words[-1].isdigit() and word in ("nm", "um", "m")
        if is_number or is_unit:
            words[-1] += word
        else:
            words.append(word)
    sensor = next((_SENSOR_WORDS[word] for word in words if word in _SENSOR_WORDS), None)
    codes = ["b" + match[1] for match in map(_CODE.fullmatch, words) if match]
    rest = [
        word
        for word in words
        if word not in _SENSOR_WORDS
        and not (_CODE.fullmatch(word) or _WAVELENGTH_OR_SIZE.fullmatch(word) or word == "hls")
    ]
    rest_key = band_key(" ".join(rest))
    plain = _PLAIN_NAMES.get(rest_key)
    # An unknown remainder (as in "B02_std") makes the code doubtful, unless the sensor is spelled out beside it.
    understood = plain is not None or not rest_key or sensor is not None
    return BandLabel(key, codes[0] if len(codes) == 1 and understood else None, plain, sensor)


def is_undescribed(descriptions: Sequence[str | None] | None) -> bool:
    """Whether there are no descriptions, or each is empty or only a running number, as `"Band 1"` or `"band_2"` is."""
    texts = [(text or "").strip().lower() for text in descriptions or ()]
    return all(not text or _GENERIC.fullmatch(text) for text in texts)


def find_band_names(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Find the 0-based position of each wanted band in `known`, or None; `"B8A"` is `"NIR_NARROW"`.

    Codes that mean different bands on different sensors, with nothing beside them to tell which, are compared as they
    are written. A plain near infrared (`"NIR"`) stands for a narrow or a broad one, where only one of them is there.
    """
    meanings = _find_meanings(known)
    positions = {meaning: i for i, meaning in reversed(list(enumerate(meanings)))}
    infrared = [i for i, meaning in enumerate(meanings) if meaning in (_ANY_NIR, *_NIRS)]
    found: list[int | None] = []
    for meaning in _find_meanings(wanted):
        position = positions.get(meaning)
        unnamed = meaning == _ANY_NIR or (meaning in _NIRS and _ANY_NIR in meanings)
        found.append(infrared[0] if position is None and unnamed and len(infrared) == 1 else position)
    return found


def _find_meanings(names: Sequence[str]) -> list[str]:
    """Give each name as a canonical one where every sensor in question agrees, else its key."""
    labels = [parse_band_description(name) for name in names]
    tables = _plausible_sensors(labels).values()
    meanings = []
    for label in labels:
        found = {_meaning(label, table) for table in tables}
        meanings.append((found.pop() if len(found) == 1 else None) or label.key)
    return meanings


def _plausible_sensors(labels: Sequence[BandLabel]) -> Mapping[str, Mapping[str, str]]:
    """Give the sensors whose codes a file may use: those that it names or gives away by their own codes, or all."""
    named = {label.sensor for label in labels if label.sensor is not None}
    if not named and any(label.code in _SENTINEL_2_CODES for label in labels):
        named = {SENTINEL_2}
    return {sensor: table for sensor, table in SENSOR_BANDS.items() if not named or sensor in named}


def _meaning(label: BandLabel, table: Mapping[str, str]) -> str | None:
    """Give a label's meaning, a canonical name or `NIR`, when codes are read with one sensor's table."""
    by_code = table.get(label.code or "")
    if label.plain is None:
        return by_code
    # "B8 (NIR)": the code says which near infrared it is, the word does not.
    return by_code if label.plain == _ANY_NIR and by_code in _NIRS else label.plain


def resolve_bands(
    descriptions: Sequence[str | None] | None,
    count: int,
    bands: Sequence[str],
    band_indices: Sequence[int] | None = None,
    name: str = "",
) -> list[int]:
    """Find the 0-based positions of the needed bands, all different, in a file of `count` bands.

    `band_indices` are these positions in files without descriptions and with other than `len(bands)` bands. A band
    that is missing or found twice, and codes of a sensor that cannot be told, are a ValueError.
    """
    prefix, needed = f"{name}: " if name else "", ", ".join(bands)
    texts = descriptions or ()
    listing = _list_descriptions(texts)
    if texts and len(texts) != count:
        raise ValueError(
            f"{prefix}expected one description for each of {count} bands, found {len(texts)}: {listing}. "
            "Remedy: name every band, or none."
        )
    if is_undescribed(descriptions):
        if count == len(bands):
            return list(range(count))
        if band_indices is not None and max(band_indices) < count:
            return list(band_indices)
        given = "" if band_indices is None else f", and band_indices {list(band_indices)} reach beyond them"
        dates = count // len(bands) if bands and count > len(bands) and count % len(bands) == 0 else 0
        raise ValueError(
            f"{prefix}expected {len(bands)} bands ({needed}), found {count} bands without descriptions{given}. "
            f"Remedy: set band_indices to the 0-based positions of these {len(bands)} bands, or write band "
            "descriptions into the file, or pass band_names."
            + (f" If the file stacks {dates} dates, set num_frames={dates}." if dates else "")
        )
    labels = [parse_band_description(text) for text in texts]
    readings = {}  # by sensor, for each needed band the positions that carry it
    for sensor, table in _plausible_sensors(labels).items():
        meanings = [_meaning(label, table) for label in labels]
        readings[sensor] = [_find_positions(band, labels, meanings) for band in bands]
    complete = {sensor: matches for sensor, matches in readings.items() if all(matches)}
    if not complete:
        best = max(readings, key=lambda sensor: sum(map(bool, readings[sensor])))
        missing = [band for band, found in zip(bands, readings[best], strict=True) if not found]
        raise ValueError(
            f"{prefix}expected the {len(bands)} bands {needed}, found {len(labels)} bands described as {listing}: no "
            f"band for {', '.join(missing)} (codes read as {' or '.join(readings)}). Remedy: correct the band "
            "descriptions of the file, pass band_names, or set the processor's bands to what the file holds."
        )
    # Only the Landsat reading is complete, although nothing names Landsat and B8 or B11 suggest Sentinel-2.
    suggests_sentinel_2 = any(label.code in _LIKELY_SENTINEL_2_CODES for label in labels)
    is_doubtful = set(complete) == {LANDSAT} and suggests_sentinel_2 and not any(label.sensor for label in labels)
    matches, *others = complete.values()
    if is_doubtful or any(other != matches for other in others):
        raise ValueError(
            f"{prefix}expected band descriptions that tell the sensor, found {listing}: the bands {needed} are "
            f"elsewhere when the codes are read as {SENTINEL_2} than as {LANDSAT}, or only the less likely reading "
            "holds them all. Remedy: describe the bands by name (BLUE, NIR_NARROW, ...) or with the sensor (S30_B05, "
            "L30_B05), or pass band_names."
        )
    positions = [position for found in matches for position in found]
    if len(positions) == len(set(positions)) == len(bands):
        return positions
    clashes = "; ".join(
        f"{band}: {_list_descriptions([texts[i] for i in found])}"
        for band, found in zip(bands, matches, strict=True)
        if len(found) > 1 or any(positions.count(i) > 1 for i in found)
    )
    raise ValueError(
        f"{prefix}expected exactly one band of its own for each of {needed}, found a clash: {clashes} (all "
        f"descriptions: {listing}). Remedy: give the bands distinct descriptions, or select the bands of one date "
        "first; several dates are given as a tuple of frames."
    )


@lru_cache(maxsize=256)
def resolve_bands_once(
    descriptions: tuple[str | None, ...] | None, count: int, bands: tuple[str, ...], indices: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Remember `resolve_bands`: it takes longer than reading a crop, and files of a dataset are described alike."""
    return tuple(resolve_bands(descriptions, count, bands, indices))


def _find_positions(band: str, labels: Sequence[BandLabel], meanings: Sequence[str | None]) -> list[int]:
    """Find the positions that carry a band, given what each label means by one sensor's table."""
    key = band_key(band)
    wanted = _PLAIN_NAMES.get(key)
    found = [i for i, label in enumerate(labels) if label.key == key or (wanted and meanings[i] == wanted)]
    if not found and wanted in (*_NIRS, _ANY_NIR):
        alike = _NIRS if wanted == _ANY_NIR else (_ANY_NIR,)
        found = [i for i, meaning in enumerate(meanings) if meaning in alike]
    return found


def _list_descriptions(descriptions: Sequence[str | None]) -> str:
    return "[" + ", ".join(text or "(none)" for text in descriptions) + "]"
