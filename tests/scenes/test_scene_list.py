# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Lists of scenes of every kind, hostile ones among them."""

import json
import os
import warnings

import numpy as np
import pytest

from prithvi_hf.disk import plain_name
from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.outputs.cog import write_class_map, write_probabilities
from prithvi_hf.scenes import scene_list
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.scene_list import list_scenes
from tests.granule_factory import LANDSAT_8, REFLECTANCE, SENTINEL_2_ORDER, read_reflectance, write_bands
from tests.scene_factory import tiny_processor


BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12", "Fmask")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def granule(folder, tile, day, flat=False):
    """Empty band files of an HLS granule."""
    name = f"HLS.S30.T{tile}.2022{day:03d}T100601.v2.0"
    place = folder if flat else folder / name
    return tuple(touch(place / f"{name}.{band}.tif") for band in BANDS)


def test_text(tmp_path):
    lines = "# two scenes\njune.tif july.tif\n\n'with blank.tif' /data/b.tif  # a comment\n"
    scenes = list_scenes(write(tmp_path / "list.txt", lines), num_frames=2)
    assert [scene.name for scene in scenes] == ["june", "with_blank"]
    assert scenes[0].frames == (str(tmp_path / "june.tif"), str(tmp_path / "july.tif"))
    assert scenes[1].frames == (str(tmp_path / "with blank.tif"), "/data/b.tif")
    assert scenes[1].files == scenes[1].frames
    assert scenes[1].origin.endswith("list.txt, line 4")


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_table(tmp_path, suffix, comma):
    rows = [["Name", "frame_1", "frame_2", "cloud"], ["a", "x.tif", "y.tif", "3"], [], ["", "z.tif", "", "7"]]
    scenes = list_scenes(write(tmp_path / f"list{suffix}", "\n".join(comma.join(row) for row in rows)))
    assert [(scene.name, len(scene.frames)) for scene in scenes] == [("a", 2), ("z", 1)]
    assert scenes[0].frames[1] == str(tmp_path / "y.tif")


def test_json_lines(tmp_path):
    rows = [{"name": "field 7/8", "frames": [["B02.tif", "B03.tif"], "july.tif"]}, {"frames": ["c.tif"]}]
    scenes = list_scenes(write(tmp_path / "list.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n"))
    assert scenes[0].name == "field_7_8"
    assert scenes[0].frames[0] == (str(tmp_path / "B02.tif"), str(tmp_path / "B03.tif"))
    assert len(scenes[0].files) == 3
    assert scenes[1].name == "c"


def test_glob_and_folder_of_files(tmp_path):
    for name in ("b/scene.tif", "a/scene.tif", "a/other.TIF", "a/notes.txt", "a/._scene.tif", ".hidden/scene.tif"):
        touch(tmp_path / name)
    scenes = list_scenes(str(tmp_path / "*" / "scene.tif"))
    assert [scene.name for scene in scenes] == ["a_scene", "b_scene"]
    scenes = list_scenes(tmp_path)
    assert [scene.name for scene in scenes] == ["a_other", "a_scene", "b_scene"]
    assert [scene.frames for scene in list_scenes(str(tmp_path / "a*"))] == [
        (str(tmp_path / "a" / name),) for name in ("other.TIF", "scene.tif")
    ]


def test_file_whose_name_looks_like_a_glob(tmp_path):
    write(tmp_path / "list[1].txt", "a.tif\n")
    assert [scene.name for scene in list_scenes(tmp_path / "list[1].txt")] == ["a"]


@pytest.mark.parametrize("flat", [True, False])
def test_hls_granules_are_grouped_by_tile_and_date(tmp_path, flat):
    days = (152, 182, 213)
    expected = {tile: tuple(granule(tmp_path, tile, day, flat) for day in days) for tile in ("33UUP", "10SEJ")}
    touch(tmp_path / "overview.tif")  # belongs to no granule
    with pytest.warns(UserWarning, match=r"1 GeoTIFFs .*overview\.tif"):
        scenes = list_scenes(tmp_path, num_frames=3)
    assert [scene.name for scene in scenes] == ["T10SEJ_2022-06-01_2022-08-01", "T33UUP_2022-06-01_2022-08-01"]
    assert scenes[1].frames == tuple(tuple(sorted(files)) for files in expected["33UUP"])
    assert [scene.problem for scene in scenes] == [None, None]
    single = list_scenes(str(tmp_path / "HLS*T33UUP*"), num_frames=1)
    assert len(single) == 3
    assert single[0].name == "HLS.S30.T33UUP.2022152T100601.v2.0"


def test_one_bad_granule_does_not_stop_a_folder(tmp_path):
    """An impossible day and a granule that lies there twice are problems of their own scenes."""
    good = granule(tmp_path, "33UUP", 152)
    touch(tmp_path / "x" / "HLS.S30.T33UUP.2022400T100601.v2.0.B02.tif")
    twice = granule(tmp_path / "a", "10SEJ", 152)
    granule(tmp_path / "b", "10SEJ", 152)
    scenes = {scene.name: scene for scene in list_scenes(tmp_path)}
    assert len(scenes) == 3
    whole = scenes["HLS.S30.T33UUP.2022152T100601.v2.0"]
    assert (whole.problem, whole.files) == (None, tuple(sorted(good)))
    assert "expected one file of each layer" in scenes["HLS.S30.T10SEJ.2022152T100601.v2.0"].problem
    assert twice[0] in scenes["HLS.S30.T10SEJ.2022152T100601.v2.0"].problem
    assert "found 2022400T100601" in scenes["x_HLS.S30.T33UUP.2022400T100601.v2.0.B02"].problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "a.tif\nhttps://example.org/b.tif\nc.tif\n"),
        ("a.txt", "a.tif\n'open.tif\nc.tif\n"),
        ("a.csv", "frame\na.tif\nhttps://example.org/b.tif\nc.tif\n"),
        ("a.csv", "frame\na.tif\nb.tif,b.tif\nc.tif\n"),
        ("a.jsonl", '{"frames": ["a.tif"]}\n{"frames": ["/vsicurl/b.tif"]}\n{"frames": ["c.tif"]}\n'),
        ("a.jsonl", '{"frames": ["a.tif"]}\n{"frames": [\n{"frames": ["c.tif"]}\n'),
    ],
)
def test_one_bad_line_does_not_stop_a_list(tmp_path, name, text):
    scenes = list_scenes(write(tmp_path / name, text))
    assert [scene.problem is None for scene in scenes] == [True, False, True]
    assert [scene.name for scene in scenes] == ["a", "row_3" if name == "a.csv" else "line_2", "c"]
    assert scenes[1].origin in scenes[1].problem
    assert scenes[1].files == (), "what was refused is never opened"


def test_one_bad_item_does_not_stop_a_collection(tmp_path):
    items = [
        {"id": name, "properties": {}, "assets": {"data": {"href": href, "type": "image/tiff"}}}
        for name, href in (
            ("a", "a.tif"),
            ("b", "https://example.org/b.tif"),
            ("HLS.S30.T10SEJ.2022400T100601.v2.0", "c"),
        )
    ]
    text = json.dumps({"type": "FeatureCollection", "features": [*items, {"id": "d"}]})
    scenes = list_scenes(write(tmp_path / "items.json", text))
    assert [scene.problem is None for scene in scenes] == [True, False, False, False]
    assert [scene.name for scene in scenes] == ["a", "b", "HLS.S30.T10SEJ.2022400T100601.v2.0", "item_4"]


BAD_FRAMES = {
    "NUL": b"a\0b.tif",
    "Latin-1": b"caf\xe9.tif",
    "UTF-16": "b.tif".encode("utf-16"),
    "half an address": b"http://[::1/b.tif",
    "no host": b"https:///b.tif",
    "Windows": rb"C:\tiles\b.tif",
    "Windows, relative": rb"tiles\b.tif",
    "a quote": b'"b.tif',
    "compatibility characters in a host": "http://a\u2100b.org/b.tif".encode(),
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
@pytest.mark.parametrize("kind", ["list.txt", "list.csv", "list.tsv"])
def test_one_bad_character_does_not_stop_a_list(tmp_path, frame, kind):
    """With the byte order mark and the line ends of Windows, as spreadsheets write them."""
    lines = [b"frame_1"] * (kind != "list.txt") + [b"a.tif", frame, b"c.tif"]
    (tmp_path / kind).write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    scenes = list_scenes(tmp_path / kind, allow_remote=True)
    assert [(scene.name, scene.problem is None) for scene in scenes][::2] == [("a", True), ("c", True)]
    assert "expected" in scenes[1].problem
    assert scenes[1].files == ()
    (scenes[1].problem + scenes[1].name + scenes[1].origin).encode()  # printable, and fit for the summary


def test_one_bad_character_does_not_stop_json(tmp_path):
    """A single surrogate as JSON writes it, bytes that are not UTF-8, and addresses that are none."""
    hrefs = (r"caf\ud800.tif", "http://[::1/c.tif", r"C:\\d.tif", "http://h:x/e.tif", "caf\udce9.tif")
    members = '"type": "Feature", "properties": {"datetime": "2022\\ud800"}'
    lines = [f'{{"frames": ["{href}"], "name": "\\ud800{index}"}}' for index, href in enumerate(hrefs)]
    items = [
        f'{{{members}, "id": "\\ud800{index}", "assets": {{"x": {{"href": "{href}", "type": "image/tiff"}}}}}}'
        for index, href in enumerate((*hrefs, "good.tif"))
    ]
    collection = f'{{"type": "FeatureCollection", "features": [{", ".join(items)}]}}'
    for name, text in (("a.jsonl", "\n".join([*lines, '{"frames": ["good.tif"]}'])), ("a.json", collection)):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        scenes = list_scenes(tmp_path / name, allow_remote=True)
        # A port that is none is the server's matter: found out when it is asked.
        assert [scene.problem is None for scene in scenes] == [False, False, False, True, False, True], name
        json.dumps([[scene.name, scene.problem, scene.dates] for scene in scenes], ensure_ascii=False).encode()


def test_a_file_whose_name_is_not_utf8_is_a_problem_of_its_own(tmp_path):
    touch(tmp_path / "a.tif")
    touch(tmp_path / os.fsdecode(b"caf\xe9.tif"))
    scenes = list_scenes(tmp_path)
    assert sorted((scene.name, scene.problem is None) for scene in scenes) == [("a", True), ("caf_", False)]


def test_words_of_a_line_are_taken_as_they_are(tmp_path):
    """A number sign inside a name, quotes inside a word, semicolons for commas, two lists put together."""
    lines = "a#1.tif\n# don't\nb\" c\".tif  # it's\n\ufeff'd e.tif'\n"
    scenes = list_scenes(write(tmp_path / "list.txt", lines))
    assert [scene.files for scene in scenes] == [(str(tmp_path / name),) for name in ("a#1.tif", "b c.tif", "d e.tif")]
    scenes = list_scenes(write(tmp_path / "list.csv", "name;frame_1;frame_2\nx;a.tif;b.tif\n"))
    assert [(scene.name, len(scene.frames)) for scene in scenes] == [("x", 2)]
    existing = touch(tmp_path / r"odd\name.tif")
    assert list_scenes(write(tmp_path / "list.txt", f"'{existing}'"))[0].frames == (existing,)


def test_maps_are_not_scenes(tmp_path):
    """Maps inside the folder, copies elsewhere, probabilities, and what else is beside them."""
    for name in (
        "a.tif",
        "sub/b.tif",
        "maps/notes.tif",
        "maps/.a.tif.partial/strip.tif",
        "a.png",
        "a.json",
        "a.tif.aux.xml",
    ):
        touch(tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    write_class_map(tmp_path / "maps" / "a.tif", np.zeros((4, 4), np.uint8), id2label={0: "land"})
    write_probabilities(tmp_path / "maps" / "a_probabilities.tif", np.ones((1, 4, 4)), id2label={0: "land"})
    (tmp_path / "elsewhere" / "copy.tif").write_bytes((tmp_path / "maps" / "a.tif").read_bytes())
    for source in (tmp_path, tmp_path / "**", tmp_path / "**" / "*.tif"):
        with pytest.warns(UserWarning, match=r"2 GeoTIFFs are not taken for scenes, e\.g\. copy\.tif"):
            scenes = list_scenes(source, output_dir=tmp_path / "maps")
        assert [scene.name for scene in scenes] == ["a", "sub_b"]
    # A folder that is both: what is no map there is a scene.
    assert [scene.name for scene in list_scenes(tmp_path / "maps", output_dir=tmp_path / "maps")] == ["notes"]


@pytest.mark.parametrize("source", ["", "**/*.tif", "list.txt"])
def test_names_stay_when_scenes_are_added(tmp_path, source):
    """Others of the same name, before and behind, in other folders, in other letters, or with another suffix."""
    outside = tmp_path / "outside"
    first = ["b.tif", "m/b.tif", "m/n/b.tif"]
    later = ["a/b.tif", "n/b.tif", "m_b.tif", "m/B.tif", "m/b.tiff"]
    if source == "list.txt":
        first, later = [*first, f"{outside}/b.tif"], [*later, f"{outside}/x/b.tif", f"{outside}/y/z/b.tif"]
    names = {}
    for added in (first, later[:2], later[2:]):
        for name in added:
            touch(tmp_path / "in" / name)
        with open(tmp_path / "in" / "list.txt", "a") as file:
            file.writelines(f"{name}\n" for name in added)
        scenes = list_scenes(os.path.join(tmp_path / "in", source))
        found = {scene.frames: scene.name for scene in scenes}
        changed = [frames for frames, name in names.items() if found[frames] != name]
        if source == "list.txt":
            assert changed == []
        else:  # of a file in fewer folders alone, as `m_b.tif` beside `m/b.tif`
            assert len(changed) == ((str(tmp_path / "in" / "m" / "b.tif"),) in changed)
        assert len({name.lower() for name in found.values()}) == len(found)
        names = found


def test_tile_with_other_dates_than_the_model_takes_is_a_problem_of_its_own(tmp_path):
    for day in (152, 182, 213):
        granule(tmp_path, "33UUP", day)
    granule(tmp_path, "10SEJ", 152)
    scenes = list_scenes(tmp_path, num_frames=3)
    assert scenes[1].problem is None
    assert "takes 3 frames, tile T10SEJ has 1 (2022-06-01)" in scenes[0].problem


def stac_item(name, hrefs, date="2022-06-01T10:06:01Z", **properties):
    assets = {key: {"href": href, "type": "image/tiff; application=geotiff"} for key, href in hrefs.items()}
    assets["thumbnail"] = {"href": "small.jpg", "roles": ["thumbnail"], "type": "image/jpeg"}
    return {"type": "Feature", "id": name, "assets": assets, "properties": {"datetime": date, **properties}}


def stac(folder, *items):
    content = {"type": "FeatureCollection", "features": list(items)}
    return write(folder / "items.json", json.dumps(content))


def test_stac_items(tmp_path):
    inside = {"B02": "one/B02.tif", "B03": "./one/B03.tif", "B04": f"file://{tmp_path}/one/with%20blank.tif", "a": "a"}
    scenes = list_scenes(stac(tmp_path, stac_item("S2/one", inside), stac_item("two", {"data": "/data/two.tif"})))
    assert [scene.name for scene in scenes] == ["S2_one", "two"]
    assert scenes[0].files == tuple(str(tmp_path / "one" / name) for name in ("B02.tif", "B03.tif", "with blank.tif"))
    assert len(scenes[0].frames) == 1
    assert scenes[1].frames == ("/data/two.tif",)


def test_stac_items_of_several_dates(tmp_path):
    items = [
        stac_item(
            f"{tile}-{month}", {"data": f"{tile}-{month}.tif"}, f"2022-0{month}-05T00:00:00Z", **{"grid:code": tile}
        )
        for month in (7, 6)
        for tile in ("MGRS-33UUP", "MGRS-10SEJ")
    ]
    first, second = list_scenes(stac(tmp_path, *items), num_frames=2)
    assert first.frames == tuple(str(tmp_path / f"MGRS-33UUP-{month}.tif") for month in (6, 7))
    assert second.name == "MGRS-10SEJ_2022-06-05_2022-07-05"
    assert "takes 3 frames" in list_scenes(tmp_path / "items.json", num_frames=3)[0].problem


@pytest.mark.parametrize("kind", ["list.txt", "list.csv", "list.jsonl", "items.json"])
def test_other_machines_only_where_allowed(tmp_path, kind):
    address = "https://example.org/a/scene.tif?token=1"
    text = {
        "list.txt": f"'{address}'\n",
        "list.csv": f"frame\n{address}\n",
        "list.jsonl": json.dumps({"frames": [address]}),
        "items.json": json.dumps({"type": "FeatureCollection", "features": [stac_item("scene", {"data": address})]}),
    }[kind]
    source = write(tmp_path / kind, text)
    with pytest.raises(ValueError, match=r"another machine.*--allow_remote"):
        list_scenes(source)
    (scene,) = list_scenes(source, allow_remote=True)
    assert (scene.name, scene.frames) == ("scene", (address,))


def test_addresses_of_ipv6_and_in_capitals(tmp_path):
    lines = "http://[::1]:8000/a.tif\nHTTPS://Example.org/b.tif\n"
    scenes = list_scenes(write(tmp_path / "list.txt", lines), allow_remote=True)
    assert [scene.frames for scene in scenes] == [("http://[::1]:8000/a.tif",), ("https://Example.org/b.tif",)]


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/https://example.org/a.tif",
        "/VSIS3/bucket/a.tif",
        " /vsimem/a",
        "s3://bucket/a.tif",
        "ftp://example.org/a.tif",
        "https:///a.tif",
        "file://elsewhere/share/a.tif",
        "file:///vsicurl/a.tif",
        "GTIFF_DIR::1",
        "a\0b.tif",
    ],
)
def test_paths_that_are_none_are_refused_whatever_is_allowed(tmp_path, path):
    source = write(tmp_path / "list.jsonl", json.dumps({"frames": [path]}))
    with pytest.raises(ValueError, match=r"list\.jsonl, line 1: expected"):
        list_scenes(source, allow_remote=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "# nothing\n", "at least one scene"),
        ("a.txt", "'open.tif\n", "line 1: expected paths, quoted"),
        ("a.csv", "", "columns frame_1"),
        ("a.csv", "name,path\na,b\n", "columns frame_1"),
        ("a.csv", "name,frame\na,b,c\n", "row 2: expected 2 columns"),
        ("a.csv", "name,frame\na,\n", "at least one frame"),
        ("a.csv", 'frame\n"a', "expected a table"),
        ("a.jsonl", "[1]\n", "expected an object"),
        ("a.jsonl", '{"frames": "a.tif"}\n', "expected an object"),
        ("a.jsonl", '{"frames": []}\n', "at least one frame"),
        ("a.jsonl", '{"frames": [1]}\n', "expected the path of a frame, found 1"),
        ("a.jsonl", '{"frames": [[]]}\n', "expected the path of a frame"),
        ("a.jsonl", '{"frames": [["a.tif", ["b.tif"]]]}\n', "expected the path of a frame"),
        ("a.jsonl", '{"frames": ["a.tif"], "name": 3}\n', "a text as name"),
        ("a.jsonl", "[" * 100_000 + "\n", "expected JSON"),
        ("a.json", "{", "expected JSON"),
        ("a.json", "[]", "STAC item collection"),
        ("a.json", '{"type": "FeatureCollection", "features": {}}', "STAC item collection"),
        ("a.json", '{"type": "FeatureCollection", "features": [{"id": "a"}]}', "item 1: expected a STAC item"),
        ("a.json", '{"type": "FeatureCollection", "features": []}', "at least one scene"),
        (
            "a.json",
            '{"type": "Feature", "id": "a", "properties": {}, "assets": {"x": {"href": "a.jpg"}}}',
            "are GeoTIFFs",
        ),
    ],
)
def test_lists_that_are_none(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        list_scenes(write(tmp_path / name, text))


def test_sources_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="found nothing there"):
        list_scenes(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="at least one scene"):
        list_scenes(str(tmp_path / "*.tif"))
    with pytest.raises(ValueError, match="at least one scene"):
        list_scenes(tmp_path)
    with pytest.raises(ValueError, match="found a GeoTIFF"):
        list_scenes(touch(tmp_path / "scene.tif"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        list_scenes(tmp_path / "binary.txt")
    monkeypatch.setattr(scene_list, "MAX_LIST_BYTES", 2)
    with pytest.raises(ValueError, match="at most 2 bytes"):
        list_scenes(tmp_path / "binary.txt")


def test_names_are_plain_and_unlike_each_other(tmp_path):
    hostile = ["../../etc/passwd", "-rf", ".hidden", "a b\n", "ä/ö", "", "x" * 300, "日本" * 60]
    for name in hostile:
        plain = plain_name(name)
        assert plain == os.path.basename(plain)
        assert plain[0] not in ".-"
        assert len(plain.encode()) <= 120
        assert (tmp_path / f"{plain}.tif").parent == tmp_path
    assert plain_name("x" * 300) != plain_name("x" * 301)
    rows = [{"name": "A", "frames": ["1.tif"]}, {"name": "a", "frames": ["2.tif"]}]
    with pytest.raises(ValueError, match=r"line 1.*line 2.*one output"):
        list_scenes(write(tmp_path / "list.jsonl", "\n".join(map(json.dumps, rows))))
    with pytest.raises(ValueError, match="more than once"):
        list_scenes(write(tmp_path / "list.txt", "a.tif\na.tif\n"))


SHORT = dict(zip(PRITHVI_BANDS, SENTINEL_2_ORDER, strict=True))
COMMON_NAMES = dict(zip(PRITHVI_BANDS, ("blue", "green", "red", "nir08", "swir16", "swir22"), strict=True))
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
S2 = {"scale": 0.0001, "offset": -0.1, "nodata": 0}
LANDSAT = {"scale": 0.0000275, "offset": -0.2, "nodata": 0}


def map_item(tmp_path, files, members, properties, media=COG, key="{}"):
    """Writes bands and an item whose assets have these members, and opens the one scene of it."""
    assets = {
        key.format(COMMON_NAMES[band]): {"href": f"./{file}", "type": media, "roles": ["data"], **members(band)}
        for band, file in files.items()
    }
    assets["qa"] = {"href": "./qa.tif", "type": COG, "roles": ["data"], "raster:bands": [{"nodata": 1}]}
    item = {"type": "Feature", "id": "item", "properties": {"datetime": "2023-06-01T05:35:49Z", **properties}}
    (scene,) = list_scenes(stac(tmp_path, {**item, "assets": assets}))
    assert scene.problem is None, scene.problem
    frames = [list(frame) if isinstance(frame, tuple) else frame for frame in scene.frames]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_reflectance(open_scene(frames, tiny_processor(), dates=scene.dates), tiny_processor())


@pytest.mark.parametrize(
    ("names", "formula", "members", "properties"),
    [
        # Earth Search, collection 1: the item says it, under STAC 1.0 and 1.1.
        ("S2B_T43QDB_20230601T053549_L2A/{0}.tif", S2, {"raster:bands": [S2]}, {"s2:processing_baseline": "05.09"}),
        (
            "S2B_T43QDB_20230601T053549_L2A/{0}.tif",
            S2,
            {"bands": [{}], "raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0},
            {"processing:version": "05.11", "platform": "sentinel-2b"},
        ),
        # Earth Search before: the offset stands in the item although it was applied to the pixels.
        (
            "S2B_43QDB_20230601_0_L2A/{0}.tif",
            {"scale": 0.0001, "offset": 0.0},
            {"raster:bands": [S2]},
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True},
        ),
        (
            "S2B_43QDB_20230601_0_L2A/{0}.tif",
            {"scale": 0.0001, "offset": 0.0},
            {},
            {"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": True},
        ),
        ("S2B_43QDB_20230601_0_L2A/{0}.tif", S2, {}, {"sentinel:processing_baseline": "04.00"}),
        (
            "S2B_43QDB_20230601_0_L2A/{0}.tif",
            S2,
            {"raster:bands": [{"nodata": 0}]},
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False},
        ),
        ("S2B_43QDB_20200601_0_L2A/{0}.tif", {**S2, "offset": 0.0}, {}, {"s2:processing_baseline": "02.14"}),
        # Names that say nothing: bands are called as the assets are.
        ("tiles/{1}-1.tif", S2, {"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}]}, {}),
        ("LC08_L2SP_044034_20210508_20210518_02_T1_{2}.TIF", LANDSAT, {"raster:bands": [LANDSAT]}, {}),
        ("LC08_L2SP_044034_20210508_20210518_02_T1_{2}.TIF", LANDSAT, {}, {"platform": "landsat-8"}),
        ("a/{1}-sr.tif", LANDSAT, {"raster:bands": [LANDSAT], "eo:bands": [{"name": "OLI"}]}, {}),
    ],
)
def test_what_an_item_states_is_applied_once(tmp_path, names, formula, members, properties):
    files = {band: names.format(SHORT[band], COMMON_NAMES[band][:3], LANDSAT_8[band]) for band in PRITHVI_BANDS}
    files = {band: name.replace("swi-", f"swi{band[-1]}-") for band, name in files.items()}
    for file in files.values():
        (tmp_path / file).parent.mkdir(exist_ok=True)
    write_bands(tmp_path, files, formula["scale"], formula["offset"])
    found = map_item(tmp_path, files, lambda band: members, properties)
    assert found == {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}


@pytest.mark.parametrize(
    ("media", "href", "is_read"),
    [
        (COG, "a", True),
        ("image/tiff", "a.tif", True),
        ("image/TIFF;application=geotiff", "a", True),
        ("image/vnd.stac.geotiff; cloud-optimized=true", "a.TIF", True),
        ("image/vnd.stac.geotiff", "a", True),
        ("image/geotiff", "a", True),
        ("image/x-geotiff", "a", True),
        (None, "a.tiff?key=1", True),
        ("application/octet-stream", "a.tif", True),
        ("image/jp2", "a.jp2", False),
        ("application/x-hdf5", "a.h5", False),
        ("application/json", "a.tif", False),
        (None, "a.png", False),
    ],
)
def test_media_types_of_geotiffs(tmp_path, media, href, is_read):
    asset = {"href": href} if media is None else {"href": href, "type": media}
    item = {"type": "Feature", "id": "item", "properties": {}, "assets": {"data": asset, "b": {"href": "b.tif"}}}
    (scene,) = list_scenes(stac(tmp_path, item))
    assert len(scene.files) == 1 + is_read


@pytest.mark.parametrize(
    ("members", "properties", "message"),
    [
        ({"raster:bands": [{"scale": "small"}]}, {}, "asset red: expected numbers for scale"),
        ({"raster:bands": [{"scale": 0}]}, {}, "expected a finite scale"),
        ({"bands": [{"raster:offset": 1e400}]}, {}, "expected a finite scale"),
        ({"raster:bands": [{**S2, "offset": 0}]}, {"s2:processing_baseline": "05.09"}, "may have been applied"),
    ],
)
def test_items_that_contradict_themselves_are_problems(tmp_path, members, properties, message):
    item = stac_item("a", {"red": "a.tif"}, **properties)
    item["assets"]["red"] |= members
    scenes = list_scenes(stac(tmp_path, item, stac_item("b", {"red": "b.tif"})))
    assert message in scenes[0].problem
    assert scenes[1].problem is None


def test_folders_with_a_file_for_each_band_are_scenes(tmp_path):
    for name in ("june/B02.tif", "june/B03.tif", "june/B04.tif", "june/SCL.tif", "july/a/red.tif", "july/a/green.tif"):
        touch(tmp_path / name)
    touch(tmp_path / "july" / "a" / "nir.tif")
    touch(tmp_path / "whole.tif")
    scenes = {scene.name: scene.files for scene in list_scenes(tmp_path)}
    assert sorted(scenes) == ["july_a", "june", "whole"]
    assert scenes["june"] == tuple(str(tmp_path / "june" / f"B0{number}.tif") for number in (2, 3, 4))
    assert list_scenes(tmp_path / "june")[0].name == "june"
