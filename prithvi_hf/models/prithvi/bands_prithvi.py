# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Band names: what a raster's band descriptions mean, and where in it the bands are that a model needs.

Names are compared without regard to case, zero padding and separators, so `B2`, `b02` and `Band_02` are one code and
`SWIR 1`, `swir-1` and `SWIR_1` are one name. The same code means different bands on different sensors (`B05` is a red
edge on Sentinel-2, the near infrared on Landsat 8/9 and HLS L30, and the first short-wave infrared on Landsat 4 to 7),
so the sensor is chosen from all descriptions of a file together, and a file that could be read in two ways is refused.
"""

import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple


CANONICAL_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD", "NIR_NARROW"),
    *("WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "PANCHROMATIC", "THERMAL_INFRARED_1", "THERMAL_INFRARED_2"),
)

# A near infrared that says neither broad nor narrow serves as whichever of the two the file does not name otherwise.
_ANY_NIR = "NIR"
_NIRS = ("NIR_BROAD", "NIR_NARROW")
_FIRST_CODES = ("b1", "b2", "b3", "b4")  # alike on Sentinel-2 and Landsat 8/9; from B05 on the codes conflict
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
    "Landsat 4/5 TM / Landsat 7 ETM+": {
        **{"b1": "BLUE", "b2": "GREEN", "b3": "RED", "b4": _ANY_NIR, "b5": "SWIR_1", "b6": "THERMAL_INFRARED_1"},
        **{"b7": "SWIR_2", "b8": "PANCHROMATIC"},
    },
    "Landsat 4/5 MSS": {"b1": "GREEN", "b2": "RED", "b4": _ANY_NIR},
    "Landsat 1-3 MSS": {"b4": "GREEN", "b5": "RED", "b7": _ANY_NIR},
    "another sensor": {},
}
"""Codes of each sensor's bands; those of Sentinel-2 are in the order of `CANONICAL_BANDS`.

After the user guides of Sentinel-2, HLS 2.0 and Landsat Collection 2. The near infrared of the older Landsats is
`NIR`, neither the broad nor the narrow one. MSS has no blue and no short-wave infrared.
"""
SENTINEL_2, LANDSAT, LANDSAT_TM, *_MSS, _OTHER = SENSOR_BANDS
_AS_NAMED = "the sensor that each description names"  # a file of several, such as dates of HLS S30 and L30
_COMMON_SENSORS = (SENTINEL_2, LANDSAT, LANDSAT_TM)  # those that codes without a sensor beside them may be of
# Landsat has a B8 and a B11 too (panchromatic, thermal), but a stack for segmentation seldom carries them, so these
# two speak for Sentinel-2 without deciding it. Bands of Landsat 4 to 7 without B6, which is thermal, decide it.
_LIKELY_SENTINEL_2_CODES = frozenset({"b8", "b11"})
_TM_CODES = frozenset({"b1", "b2", "b3", "b4", "b5", "b7"})
_OLI_CODES = frozenset({*_TM_CODES, "b6", "b10"})

# Words of a description that name a sensor, and the sensors that they leave open.
_SENSOR_WORDS = tuple(
    (re.compile(pattern), sensors)
    for pattern, sensors in (
        (r"s2[a-d]?|s30|hlss30|sentinel2[a-d]?|msi|msil[12][ac]|l2a|l1c", (SENTINEL_2,)),
        (r"l30|hlsl30|l[cot]0[89]|l[co]8\d{13}\w*|l[89]|landsat[89]|oli\d?|tirs\d?", (LANDSAT,)),
        (r"l[te]0[457]|l[te][457]\d{13}\w*|l[457]|landsat[457]|e?tm|vcid", (LANDSAT_TM,)),
        (r"landsat|lndsat", (LANDSAT, LANDSAT_TM)),
        (r"lm0[45]", _MSS[:1]),
        (r"lm0[1-3]|landsat[1-3]", _MSS[1:]),
        (r"mss", _MSS),
        (r"hls", (SENTINEL_2, LANDSAT)),
        (
            r"(?:mod|myd|mcd|vnp|vj\d)\d\w*|modis|viirs|avhrr|aster|ast\d\w*|olci|slstr|sentinel[135]\w*|spot\d?",
            (_OTHER,),
        ),
        (r"planet\w*|psscene|skysat|rapideye|worldview\d?|wv\d+|cbers\w*|gf\d|pleiades|naip", (_OTHER,)),
    )
)
_THERMAL_WORDS, _REFLECTIVE_WORDS = ("st", "bt"), ("sr",)  # of Landsat's products where nothing else names a sensor

_PLAIN_NAMES = {
    **{re.sub(r"[^a-z0-9]", "", band.lower()): band for band in CANONICAL_BANDS},
    **dict.fromkeys(("coastal", "aerosol", "coastalblue", "ultrablue", "deepblue"), "COASTAL_AEROSOL"),
    **dict.fromkeys(("rededge", "rededge071", "rededge704", "rededge705", "redge1", "re1", "vre1"), "RED_EDGE_1"),
    **dict.fromkeys(("rededge075", "rededge740", "redge2", "re2", "vre2", "vegetationrededge2"), "RED_EDGE_2"),
    **dict.fromkeys(("rededge078", "rededge783", "redge3", "re3", "vre3", "vegetationrededge3"), "RED_EDGE_3"),
    **dict.fromkeys(("vegetationrededge1", "vegetationrededge"), "RED_EDGE_1"),
    **dict.fromkeys(("broadnir", "nirwide", "widenir", "nearinfraredbroad", "broadnearinfrared"), "NIR_BROAD"),
    **dict.fromkeys(("nir8", "narrownir", "nir8a", "nearinfrarednarrow", "narrownearinfrared"), "NIR_NARROW"),
    **dict.fromkeys(("nir", "nearinfrared", "nearir"), _ANY_NIR),
    **dict.fromkeys(("nir9", "watervapour"), "WATER_VAPOR"),
    **dict.fromkeys(("swir16", "shortwaveinfrared1", "shortwaveir1", "shortwaveinfrared16"), "SWIR_1"),
    **dict.fromkeys(("swir22", "shortwaveinfrared2", "shortwaveir2", "shortwaveinfrared22"), "SWIR_2"),
    **dict.fromkeys(("pan",), "PANCHROMATIC"),
    **dict.fromkeys(("lwir", "tir", "thermal", "thermalinfrared", "tir1", "tirs1", "lwir11"), "THERMAL_INFRARED_1"),
    **dict.fromkeys(("thermal1",), "THERMAL_INFRARED_1"),
    **dict.fromkeys(("tir2", "tirs2", "lwir12", "thermal2"), "THERMAL_INFRARED_2"),
}
# Single letters mean something only where red and green are among them and nothing else is.
_LETTERS = {"r": "RED", "g": "GREEN", "b": "BLUE", "n": _ANY_NIR}
# Central wavelengths in nanometres, from and to: those of Sentinel-2, Landsat and sensors like them.
_WAVELENGTHS = {
    **{"COASTAL_AEROSOL": (430, 449), "BLUE": (475, 499), "GREEN": (545, 575), "RED": (640, 680)},
    **{"RED_EDGE_1": (700, 712), "RED_EDGE_2": (733, 747), "RED_EDGE_3": (773, 790), "NIR_BROAD": (825, 849)},
    **{"NIR_NARROW": (855, 875), "WATER_VAPOR": (935, 955), "CIRRUS": (1360, 1390), "SWIR_1": (1560, 1660)},
    **{"SWIR_2": (2150, 2230), "THERMAL_INFRARED_1": (10600, 11500), "THERMAL_INFRARED_2": (11800, 12500)},
}

_GENERIC = re.compile(r"(?:band|layer|channel|ch)?\s*[_\-.:#]*\s*(\d+)")
_CODE = re.compile(r"b(and)?0*(\d{1,2}a?)")
_LENGTH = r"\d{3,5}(?:\.\d+)?|\d{1,2}\.\d+"
_WAVELENGTH = re.compile(
    rf"(?<![\d.])(?:({_LENGTH})\s*(?:-|\u2013|to)\s*)?({_LENGTH})\s*(nm|nanomet\w+|[uµμ]m|micro(?:n|met)\w*)(?![a-z])"
)
_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?:(?P<between>[-_./]?)(?P<month>0[1-9]|1[0-2])(?P=between)(?P<day>0[1-9]|[12]\d|3[01])"
    r"|-?(?P<of_year>[0-2]\d\d|3[0-5]\d|36[0-6]))(?:t\d{4,6}z?)?(?!\d)"
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
# Of a moment in a series, such as `t1`, `date2` or `month 06`.
_NUMBER = re.compile(r"(?:t|date|time|timestep|step|frame|month|scene|image|epoch|season|year|d|m|s)?(\d+)")
# Words that say nothing of which band it is: of products, tiles, resolutions, composites and grammar.
_NOISE = re.compile(
    r"\d+|v\d+|aid\d+|\d{1,2}[ns]|n\d{4}|r\d{3}|t\d\d[a-z]{3}|r?\d+m|p\d{1,3}|pct\d+|percentile\d*|c\d\d|l[12]|l1[a-z]{2}"
    r"|l2s[pr]|rt|doy\d*|date|time|timestep|step|frame|month|year|season|bands?|layer|channel|image|raster|data|tiff?|jp2|cog"
    r"|raw|central|centre|center|wavelength|at|of|the|um|nm|reflectance|surface|toa|boa|bottom|top|atmosphere|sr|st|bt"
    r"|median|mean|mode|min|max|mosaic|medoid|geomedian|composite|first|last|harmonized|scaled|dn|tier|collection"
)
# Statistics and flags of a band are not the band.
_OTHER_QUANTITIES = re.compile(
    r"std\w*|stdev|sd|var|variance|count|n?obs|mask|qa\w*|quality|sigma|error|uncertainty|unc|clouds?|shadow|diff\w*|delta|ratio"
    r"|index|ndvi|ndwi|nbr|evi|angle|azimuth|zenith|slope|trend|amplitude|phase|rmse|tci|anomaly|probability|emissivity"
)


class BandLabel(NamedTuple):
    """What one band description says, before the sensor is known."""

    key: str  # the description as `band_key` writes it, for literal comparison
    code: str | None = None  # a sensor's band code such as `b8a`
    plain: str | None = None  # a sensor-independent meaning, a name of `CANONICAL_BANDS` or `NIR`
    sensors: tuple[str, ...] = ()  # those that the description leaves open, keys of `SENSOR_BANDS`; () says nothing
    is_thermal: bool | None = None  # Landsat's `ST_` and `SR_` tell
    letter: str | None = None  # a single letter
    date: tuple[int, ...] | None = None  # year, month, day, or year and day of the year
    numbers: tuple[int, ...] = ()  # others that may count dates; names of months are negative


class SelectedBand(str):
    """The name of a band that was found for a model already: it is where the model wants it, whatever the options say.

    A raster that is narrowed to the model's bands describes them so.
    """

    is_selected = True


def band_key(name: str) -> str:
    """Write a name as names are compared: `"swir1"`, `"b2"` and `"band2"` for `"SWIR_1"`, `"B02"` and `"Band 2"`."""
    joined = "".join(re.findall(r"[a-z0-9]+", name.lower()))
    return re.sub(r"(?<!\d)0+(?=\d)", "", joined)


def parse_band_description(description: str | None) -> BandLabel:
    """Read one band description, e.g. `"B8A"`, `"Blue (B02)"`, `"SR_B5"`, `"665 nm"` or an HLS file's name.

    An unknown text has neither code nor plain name.
    """
    text = (description or "").strip().lower()
    key = band_key(text)
    if key in _PLAIN_NAMES and _count_numbers(re.findall(r"[a-z0-9]+", text)) < 2:
        return BandLabel(key, plain=_PLAIN_NAMES[key])
    by_wavelength = None
    if found := _WAVELENGTH.search(text):
        length = sum(map(float, filter(None, found.groups()[:2]))) / (1 if found[1] is None else 2)
        length *= 1 if found[3].startswith("n") else 1000
        by_wavelength = next((band for band, (low, high) in _WAVELENGTHS.items() if low <= length <= high), None)
        text = text[: found.start()] + " " + text[found.end() :]
    dates = [
        tuple(int(number) for number in found.group("year", "month", "day", "of_year") if number)
        for found in _DATE.finditer(text)
    ]
    text = _DATE.sub(" ", text)
    text = re.sub(r"(sentinel|landsat)[\W_]+(?=\d)", r"\1", text)
    # `band`, `2` belong together.
    text = re.sub(r"(?<![a-z0-9])(b|band)[\W_]+0*(\d{1,2}a?)(?![a-z0-9])", r"\1\2", text)
    words = re.findall(r"[a-z0-9]+", text)

    sensors: tuple[str, ...] = ()
    found_codes: dict[bool, set[str]] = {False: set(), True: set()}  # of `b2`, and of `band2`
    rest: list[str] = []
    for word in words:
        if match := _CODE.fullmatch(word):
            found_codes[match[1] is not None].add("b" + match[2])
        elif named := next((kind for pattern, kind in _SENSOR_WORDS if pattern.fullmatch(word)), None):
            sensors = tuple(sensor for sensor in sensors if sensor in named) or tuple(named)
        else:
            rest.append(word)
    kinds = [word in _THERMAL_WORDS for word in rest if word in (*_THERMAL_WORDS, *_REFLECTIVE_WORDS)]
    if not sensors and kinds:
        sensors = (LANDSAT, LANDSAT_TM)
    if not sensors and re.search(r"(?<![a-z0-9])t\d\d[a-z]{3}(?![a-z0-9])", text) and "hls" not in text:
        sensors = (SENTINEL_2,) if dates and re.search(r"\d{8}t\d{6}", (description or "").lower()) else ()

    meanings, unknown, numbers, letters = set(), False, [], []
    while rest:
        # The longest run of words that is a name: `near infrared`, `swir 1`. In `swir 2 2` the second 2 is a date.
        runs = [rest[:size] for size in range(min(4, len(rest)), 0, -1)]
        run = next((run for run in runs if band_key(" ".join(run)) in _PLAIN_NAMES and _count_numbers(run) < 2), [])
        if run:
            meanings.add(_PLAIN_NAMES[band_key(" ".join(run))])
        elif match := _NUMBER.fullmatch(rest[0]):
            numbers.append(int(match[1]))
        elif rest[0] in _MONTHS or rest[0] in [month[:3] for month in _MONTHS]:
            numbers.append([month[:3] for month in _MONTHS].index(rest[0][:3]) - len(_MONTHS))
        elif len(rest[0]) == 1:
            letters.append(rest[0])
        elif not _NOISE.fullmatch(rest[0]):
            unknown = True
        del rest[: len(run) or 1]
    if any(map(_OTHER_QUANTITIES.fullmatch, words)):
        return BandLabel(key)
    if len(meanings) > 1 and meanings <= {_ANY_NIR, *_NIRS}:
        meanings.discard(_ANY_NIR)
    codes = found_codes[False] or found_codes[True]  # in `Band 1: B02` the first is a running number
    if codes and len(letters) == 1 and letters[0] in _LETTERS:  # `Band 1 (R)`
        meanings.add(_LETTERS[letters.pop()])
    plain = next(iter(meanings)) if len(meanings) == 1 and not (unknown or letters) else None
    if by_wavelength and not (unknown or letters) and (not meanings or (plain == _ANY_NIR and by_wavelength in _NIRS)):
        plain = by_wavelength
    # An unknown remainder (as in "B02_new") makes the code doubtful, unless the sensor is spelled out beside it.
    is_understood = len(codes) == 1 and (plain or not (unknown or meanings or letters) or sensors)
    letter = letters[0] if len(letters) == 1 and not (codes or meanings or unknown) else None
    return BandLabel(
        key,
        codes.pop() if is_understood else None,
        plain,
        sensors,
        kinds[0] if kinds else None,
        letter,
        dates[0] if dates else None,
        tuple(numbers),
    )


def _count_numbers(words: Sequence[str]) -> int:
    return sum(word[-1].isdigit() for word in words)


def _read_labels(descriptions: Sequence[str | None]) -> list[BandLabel]:
    """Read the descriptions of a file; single letters mean something only together."""
    labels = [parse_band_description(text) for text in descriptions]
    letters = {label.letter for label in labels if label.letter}
    if {"r", "g"} <= letters <= set(_LETTERS):
        labels = [label._replace(plain=_LETTERS[label.letter]) if label.letter else label for label in labels]
    return labels


def is_undescribed(descriptions: Sequence[str | None] | None) -> bool:
    """Whether there are no descriptions, or each is empty or only a running number, as `"Band 1"` or `"band_2"` is.

    Numbers that do not increase, as in `"Band 4", "Band 3", "Band 2"`, say which bands they are.
    """
    texts = [(text or "").strip().lower() for text in descriptions or ()]
    found = [_GENERIC.fullmatch(text) for text in texts if text]
    numbers = [int(match[1]) for match in found if match]
    running = sorted(set(numbers)) * (len(numbers) // max(1, len(set(numbers))))  # each date may begin again
    return all(found) and (numbers == running or len(numbers) < len(texts))


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
    labels = _read_labels(names)
    sensors = _find_sensors(labels)
    # The codes of a model are those of today's sensors, unless the older ones are named.
    sensors = [sensor for sensor in sensors if sensor != LANDSAT_TM] or sensors
    meanings = []
    for label in labels:
        found = {_find_meaning(label, sensor) for sensor in sensors}
        meanings.append((found.pop() if len(found) == 1 else None) or label.key)
    return meanings


def _find_sensors(labels: Sequence[BandLabel]) -> list[str]:
    """Find the sensors that a file may be of: of those that it names, or of the common ones, those that fit best."""
    named = [set(label.sensors) for label in labels if label.sensors]
    if named and not set.intersection(*named) and all(len(label.sensors) == 1 for label in labels if label.code):
        return [_AS_NAMED]
    sensors = (set.intersection(*named) or set.union(*named)) if named else set(_COMMON_SENSORS)
    codes = {label.code for label in labels if label.code and not label.is_thermal}

    def count_contradictions(sensor: str) -> int:
        count = 0
        for label in labels:
            meaning, plain = SENSOR_BANDS[sensor].get(label.code or "", ""), label.plain
            are_alike = not plain or plain == meaning or {plain, meaning} <= {_ANY_NIR, *_NIRS}
            is_other_kind = label.is_thermal is not None and label.is_thermal != meaning.startswith("THERMAL")
            count += label.code is not None and (not meaning or not are_alike or is_other_kind)
        return count

    counts = {sensor: count_contradictions(sensor) for sensor in SENSOR_BANDS if sensor in sensors}
    fitting = [sensor for sensor, count in counts.items() if count == min(counts.values())]
    if LANDSAT_TM in fitting and codes >= _TM_CODES and "b6" not in codes:
        return [LANDSAT_TM]
    # With B10 and neither B8A nor B12, which all come with it in products of Sentinel-2.
    return [LANDSAT] if LANDSAT in fitting and codes >= _OLI_CODES else fitting


def _find_meaning(label: BandLabel, sensor: str) -> str | None:
    """Give a label's meaning, a canonical name or `NIR`, when codes are read with one sensor's table."""
    if sensor == _AS_NAMED and label.sensors:
        sensor = label.sensors[0]
    if label.sensors and sensor not in label.sensors:
        return label.plain
    by_code = SENSOR_BANDS.get(sensor, {}).get(label.code or "")
    if label.plain is None:
        return by_code
    # "B8 (NIR)": the code says which near infrared it is, the word does not.
    return by_code if by_code in (_ANY_NIR, *_NIRS) and label.plain in (_ANY_NIR, *_NIRS) else label.plain


def resolve_bands(
    descriptions: Sequence[str | None] | None,
    count: int,
    bands: Sequence[str],
    band_indices: Sequence[int] | None = None,
    name: str = "",
    num_frames: int = 1,
    band_map: Mapping[str, str | int] | None = None,
) -> list[int]:
    """Find the 0-based positions of the needed bands, all different, in a file of `count` bands.

    `band_indices` are these positions in files that have so many bands, whatever they are called. `band_map` says of
    single bands how the file describes them (a description or a code) or their 0-based positions; the other bands are
    found by the rules. In a file that stacks `num_frames` dates, all bands of the first date come first, whatever
    their order in the file. A band that is missing or found twice, codes of a sensor that cannot be told, and dates
    whose order cannot be told are a ValueError.
    """
    prefix, texts = f"{name}: " if name else "", tuple(descriptions or ())
    if texts and len(texts) != count:
        raise ValueError(
            f"{prefix}expected one description for each of {count} bands, found {len(texts)}: "
            f"{_list_descriptions(texts)}. Remedy: name every band, or none."
        )
    places = {band_key(band): place for band, place in (band_map or {}).items()}
    outside = sorted(place for place in places.values() if isinstance(place, int) and place >= count)
    if outside:
        raise ValueError(
            f"{prefix}expected 0-based positions below {count} in band_map, found {', '.join(map(str, outside))}. "
            "Remedy: give positions that the file has, or what it describes the bands as."
        )
    labels = [] if is_undescribed(texts) else _read_labels(texts)
    given = {
        i: _find_given(places[band_key(band)], labels) for i, band in enumerate(bands) if band_key(band) in places
    }
    positions = _take_by_position(count, bands, band_indices, num_frames, given, described=bool(labels))
    if positions is not None:
        with suppress(ValueError):
            by_name = resolve_bands(texts, count, bands, None, "", num_frames) if labels else positions
            if by_name != positions:
                warnings.warn(
                    f"{prefix}the bands {', '.join(bands)} are taken from the positions {positions}, as band_indices "
                    f"or band_map say; by the descriptions {_list_descriptions(texts)} they would be {by_name}. Leave "
                    "the option out where the descriptions are right.",
                    stacklevel=2,
                )
        return _check_distinct(positions, bands, texts, prefix)
    if not labels:
        reach = "" if band_indices is None else f", and band_indices {list(band_indices)} reach beyond them"
        reach += ", so that band_map can only give 0-based positions" if given else ""
        dates = count // len(bands) if bands and count > len(bands) and count % len(bands) == 0 else 0
        raise ValueError(
            f"{prefix}expected {len(bands)} bands ({', '.join(bands)}), found {count} bands without descriptions"
            f"{reach}. Remedy: set band_indices to the 0-based positions of these {len(bands)} bands, or write band "
            "descriptions into the file, or pass band_names."
            + (f" If the file stacks {dates} dates, set num_frames={dates}." if dates else "")
        )
    matches = _choose_reading(labels, bands, given, texts, prefix)
    counts = {len(found) for found in matches}
    if num_frames > 1 and counts == {num_frames}:
        return _order_dates(matches, labels, f"{prefix}{_list_descriptions(texts)}")
    if counts == {1}:
        return _check_distinct([found[0] for found in matches], bands, texts, prefix)
    [dates] = counts if len(counts) == 1 else [0]
    if num_frames > 1 and dates:
        raise ValueError(
            f"{prefix}expected {num_frames} dates of each band (num_frames), found {dates}: "
            f"{_list_descriptions(texts)}. Remedy: set num_frames={dates} for a model of so many dates."
        )
    raise ValueError(
        f"{prefix}expected exactly one band of its own for each of {', '.join(bands)}, found a clash: "
        f"{_list_clashes(matches, bands, texts)} (all descriptions: {_list_descriptions(texts)}). Remedy: give the "
        "bands distinct descriptions, choose by band_map or band_indices, or select the bands of one date first; "
        "several dates are given as a tuple of frames."
        + (f" If the file stacks {dates} dates, set num_frames={dates}." if dates else "")
    )


def _take_by_position(
    count: int,
    bands: Sequence[str],
    band_indices: Sequence[int] | None,
    num_frames: int,
    given: Mapping[int, Sequence[int]],
    described: bool,
) -> list[int] | None:
    """Take bands by position, `given` ones first: by `band_indices`, or of a file without descriptions in order."""
    is_stack = num_frames > 1 and count == len(bands) * num_frames
    if any(len(places) != 1 for places in given.values()):
        return None
    if len(given) == len(bands):
        band_indices = [given[i][0] for i in range(len(bands))]
    # A stack of dates without descriptions has no other bands; the positions are those of larger files.
    limit = len(bands) if is_stack and not described else count
    if band_indices is None or max(band_indices) >= limit:
        if described or count not in (len(bands), len(bands) * num_frames):
            return None
        band_indices = range(len(bands))
    positions = [given[i][0] if i in given else place for i, place in enumerate(band_indices)]
    if is_stack and max(positions) < len(bands):
        return [date * len(bands) + place for date in range(num_frames) for place in positions]
    return positions


def _choose_reading(
    labels: Sequence[BandLabel],
    bands: Sequence[str],
    given: Mapping[int, list[int]],
    texts: Sequence[str | None],
    prefix: str,
) -> list[list[int]]:
    """Find the positions that carry each band, by the codes of the one sensor that the file can be of."""
    needed, listing = ", ".join(bands), _list_descriptions(texts)
    taken = {place for places in given.values() for place in places}
    wanted, sensors = _find_meanings(bands), _find_sensors(labels)
    readings = {}  # by sensor
    for sensor in sensors:
        meanings = [None if i in taken else _find_meaning(label, sensor) for i, label in enumerate(labels)]
        readings[sensor] = [
            given[i] if i in given else _find_positions(band, meaning, labels, meanings, taken)
            for i, (band, meaning) in enumerate(zip(bands, wanted, strict=True))
        ]
    complete = {sensor: matches for sensor, matches in readings.items() if all(matches)}
    if not complete:
        best = max(readings, key=lambda sensor: sum(map(bool, readings[sensor])))
        missing = [band for band, found in zip(bands, readings[best], strict=True) if not found]
        raise ValueError(
            f"{prefix}expected the {len(bands)} bands {needed}, found {len(labels)} bands described as {listing}: no "
            f"band for {', '.join(missing)} (codes read as {' or '.join(readings)})."
            f"{explain_other_nir(missing, texts, best)} Remedy: correct the band descriptions of the file, pass "
            f"band_names, choose a band of the file by band_map (--band_map {missing[0]}=DESCRIPTION, or its 0-based "
            "position), or set the processor's bands to what the file holds."
        )
    is_named, codes = any(label.sensors for label in labels), {label.code for label in labels}
    if LANDSAT_TM in complete and len(complete) > 1 and not is_named and "b8" in codes:
        del complete[LANDSAT_TM]  # its B8 has pixels of another size
    # Only the less likely reading is complete: Landsat 8/9, although nothing names it and B8 or B11 suggest
    # Sentinel-2, or the older Landsats, although nothing but the missing bands speaks for them.
    is_doubtful = set(complete) == {LANDSAT_TM} and len(sensors) > 1
    if set(complete) == {LANDSAT} and SENTINEL_2 in sensors and not is_named:
        is_doubtful = bool(codes & _LIKELY_SENTINEL_2_CODES)
    matches, *others = complete.values()
    if is_doubtful or any(other != matches for other in others):
        raise ValueError(
            f"{prefix}expected band descriptions that tell the sensor, found {listing}: the bands {needed} are "
            f"elsewhere when the codes are read as {' than as '.join(sensors)}, or only the less likely reading "
            "holds them all. Remedy: describe the bands by name (BLUE, NIR_NARROW, ...) or with the sensor (S30_B05, "
            "L30_B05, LT05_B5), or pass band_names, band_indices or band_map."
        )
    return matches


@lru_cache(maxsize=256)
def resolve_bands_once(
    descriptions: tuple[str | None, ...] | None,
    count: int,
    bands: tuple[str, ...],
    indices: tuple[int, ...] | None,
    num_frames: int = 1,
    band_map: tuple[tuple[str, str | int], ...] = (),
) -> tuple[int, ...]:
    """Remember `resolve_bands`: it takes longer than reading a crop, and files of a dataset are described alike."""
    return tuple(resolve_bands(descriptions, count, bands, indices, "", num_frames, dict(band_map)))


def _find_positions(
    band: str, wanted: str, labels: Sequence[BandLabel], meanings: Sequence[str | None], taken: set[int]
) -> list[int]:
    """Find the positions that carry a band, given what it and each label mean by one sensor's table."""
    key = band_key(band)
    free = [i for i in range(len(labels)) if i not in taken]
    found = [i for i in free if key == labels[i].key or wanted == meanings[i]]
    # What a code of the model means is not known where no sensor is named: it is the band of this code.
    if not found and wanted == key:
        found = [i for i in free if key == labels[i].code]
    if wanted in (*_NIRS, _ANY_NIR):
        alike = _NIRS if wanted == _ANY_NIR else (_ANY_NIR,)
        others = [i for i, meaning in enumerate(meanings) if meaning in alike]
        # Beside one that is named so, only that of another sensor: a stack of dates of Landsat 7 and 8 has both.
        sensors = {sensor for i in found for sensor in labels[i].sensors}
        found += [i for i in others if not found or (labels[i].sensors and not sensors & {*labels[i].sensors})]
    return sorted(found)


def parse_band_map(value: Any) -> Any:
    """Read `band_map` as a command line has it, `["NIR_NARROW=B08", "SWIR_1=4"]`; anything else is left as it is."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    pairs = [text.partition("=") for text in texts]
    doubles = {band for band, _, _ in pairs if [pair[0] for pair in pairs].count(band) > 1}
    if wrong := [
        text for text, (band, _, place) in zip(texts, pairs, strict=True) if not (band and place) or band in doubles
    ]:
        raise ValueError(
            f"band_map: expected BAND=DESCRIPTION or BAND=POSITION for different bands, such as NIR_NARROW=B08, found "
            f"{', '.join(wrong)}. Remedy: write the model's name of the band, =, and what the file calls it."
        )
    return {band: int(place) if place.isdecimal() else place for band, _, place in pairs}


def _find_given(place: str | int, labels: Sequence[BandLabel]) -> list[int]:
    """Find what `band_map` gives for a band: a position, or a description, a code or a name in the file."""
    if isinstance(place, int):
        return [place]
    key, label = band_key(place), parse_band_description(place)
    for matches in (
        [i for i, one in enumerate(labels) if one.key == key],
        [i for i, one in enumerate(labels) if label.code and one.code == label.code],
        [i for i, one in enumerate(labels) if label.plain and one.plain == label.plain],
    ):
        if matches:
            return matches
    return []


def explain_other_nir(missing: Sequence[str], texts: Sequence[str | None], sensor: str) -> str:
    """Say that the other near infrared is there, where one is missing; empty otherwise."""
    labels = _read_labels(texts)
    for band in missing:
        other = {"NIR_NARROW": "NIR_BROAD", "NIR_BROAD": "NIR_NARROW"}.get(_find_meanings([band])[0])
        there = [text for text, label in zip(texts, labels, strict=True) if _find_meaning(label, sensor) == other]
        if other and there:
            kind = "broad" if other == "NIR_BROAD" else "narrow"
            return (
                f" {there[0]} is the {kind} near infrared ({other}), which is another band. A model that was trained "
                f"with {band} sees it a little differently: where that is fine, give --band_map "
                f"{shlex.quote(f'{band}={there[0]}')}."
            )
    return ""


def _order_dates(matches: Sequence[Sequence[int]], labels: Sequence[BandLabel], listing: str) -> list[int]:
    """Put the positions of each band's dates in order of time: all bands of the first date, then of the second."""
    moments: list[list[tuple[int, ...]]] = []
    for places in matches:
        dates = [labels[i].date for i in places]
        numbers = [labels[i].numbers for i in places]
        if sorted(numbers) == [(), *((i,) for i in range(1, len(places)))]:
            numbers = [number or (0,) for number in numbers]  # `B2`, `B2_1`, `B2_2`, as Earth Engine joins images
        if any(date is not None for date in dates):
            keys = [date or () for date in dates]
        elif len(set(map(len, numbers))) == 1:
            columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
            years = [c for c in columns if len(set(c)) == len(c) and all(1950 <= year <= 2100 for year in c)]
            columns = years[:1] or columns
            # Two numbers that change, or long ones that are not dates, may be read in several ways.
            is_clear = len(columns) < 2 and all(number <= 2100 for column in columns for number in column)
            # Months without a year begin again in January.
            is_clear &= all(min(column) >= 0 or list(column) == sorted(column) for column in columns)
            keys = [(number,) for number in columns[0]] if columns and is_clear else [()] * len(places)
            if not is_clear:
                keys = []
        else:
            keys = []
        moments.append(keys)
    in_file = sorted(
        (place, key)
        for keys, places in zip(moments, matches, strict=True)
        for key, place in zip(keys, places, strict=bool(keys))
    )
    order = [key for _, key in in_file]
    if all(keys and set(keys) == {()} for keys in moments):
        ordered = [list(places) for places in matches]  # nothing tells dates apart but their order in the file
    elif all(len(set(keys)) == len(keys) > 0 and set(keys) == set(moments[0]) and () not in keys for keys in moments):
        ordered = [
            [place for _, place in sorted(zip(keys, places, strict=True))]
            for keys, places in zip(moments, matches, strict=True)
        ]
    elif all(moments) and order == sorted(set(order)):
        ordered = [list(places) for places in matches]  # running numbers of the bands
    else:
        raise ValueError(
            f"{listing}: expected dates in the descriptions that tell their order, found some that do not. Remedy: "
            "write them as YYYYMMDD, the same for all bands of a date, or give one file for each date."
        )
    return [places[date] for date in range(len(ordered[0])) for places in ordered]


def _check_distinct(positions: list[int], bands: Sequence[str], texts: Sequence[str | None], prefix: str) -> list[int]:
    """Refuse positions of which two bands share one."""
    if len(set(positions)) == len(positions):
        return positions
    raise ValueError(
        f"{prefix}expected exactly one band of its own for each of {', '.join(bands)}, found a clash: "
        f"{_list_clashes([[place] for place in positions], bands, texts)} (all descriptions: "
        f"{_list_descriptions(texts)}). Remedy: give the bands distinct descriptions, or choose others in band_map."
    )


def _list_clashes(matches: Sequence[Sequence[int]], bands: Sequence[str], texts: Sequence[str | None]) -> str:
    """List the bands that have several positions, or one that another band has too, with their descriptions."""
    positions = [position for found in matches for position in found]
    return "; ".join(
        f"{band}: {_list_descriptions([texts[i] if texts else f'position {i}' for i in found])}"
        for band, found in zip(bands, matches, strict=True)
        if len(found) > 1 or any(positions.count(i) > 1 for i in found)
    )


def _list_descriptions(descriptions: Sequence[str | None]) -> str:
    return "[" + ", ".join(text or "(none)" for text in descriptions) + "]"
