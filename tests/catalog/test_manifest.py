# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The manifest of a fetch and its journal."""

import hashlib
import json

import pytest

from prithvi_hf.catalog.manifest import MANIFEST, Manifest, find_multihash, hash_file


REQUEST = {"bbox": [1.0, 2.0, 3.0, 4.0], "whole": False, "dates": "2021-06-01/2021-06-30"}
ITEM = {"id": "a", "collection": "c"}


def add_file(folder, name="a/b.tif", content=b"pixels"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return {"path": name, "item": "a", "bytes": len(content), "sha256": hash_file(path)}


def test_files_are_known_again_after_a_run_that_was_killed_and_after_one_that_ended(tmp_path):
    file = add_file(tmp_path)
    manifest = Manifest(tmp_path, REQUEST)
    manifest.note(file)
    (tmp_path / ".manifest.jsonl").open("a").write('{"request": {"bbox": [1.0')  # where it was killed
    again = Manifest(tmp_path, {**REQUEST, "dates": "2021-07-01/2021-07-31"})
    assert again.find("a/b.tif") == file
    again.write([ITEM], {"a/c.tif": "403"}, {"d": "clouds"}, "tool 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", MANIFEST]
    content = json.loads((tmp_path / MANIFEST).read_text())
    assert content["items"] == [{**ITEM, "files": [file]}]
    assert (content["missing"], content["left_out"], content["tool"]) == (
        {"a/c.tif": "403"},
        {"d": "clouds"},
        "tool 1",
    )
    assert Manifest(tmp_path, REQUEST).find("a/b.tif") == file


def test_files_that_changed_or_went_are_not_known(tmp_path):
    manifest = Manifest(tmp_path, REQUEST)
    manifest.note(add_file(tmp_path))
    (tmp_path / "a/b.tif").write_bytes(b"pixelz")
    assert manifest.find("a/b.tif") is None
    (tmp_path / "a/b.tif").unlink()
    assert manifest.find("a/b.tif") is None
    manifest.write([ITEM], {}, {}, "tool")
    assert json.loads((tmp_path / MANIFEST).read_text())["items"] == []


def test_items_of_earlier_dates_stay_in_the_manifest(tmp_path):
    first = Manifest(tmp_path, REQUEST)
    first.note(add_file(tmp_path))
    first.write([ITEM], {}, {}, "tool")
    second = Manifest(tmp_path, {**REQUEST, "dates": "2022"})
    second.note({**add_file(tmp_path, "b/b.tif"), "item": "b"})
    second.write([{**ITEM, "id": "b"}], {}, {}, "tool")
    assert [item["id"] for item in json.loads((tmp_path / MANIFEST).read_text())["items"]] == ["a", "b"]


def test_a_folder_of_another_box_or_with_another_manifest_is_refused(tmp_path):
    Manifest(tmp_path, REQUEST).write([], {}, {}, "tool")
    for name, value in (("bbox", [0, 0, 1, 1]), ("whole", True)):
        with pytest.raises(
            ValueError, match=rf"expected files that were fetched with {name} .* Choose another folder"
        ):
            Manifest(tmp_path, {**REQUEST, name: value})
    for content in ("[]", "not JSON", '{"request": 3}'):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(ValueError, match="expected the manifest of an earlier fetch, found another file"):
            Manifest(tmp_path, REQUEST)


@pytest.mark.parametrize(
    ("code", "name"),
    [("11", "sha1"), ("12", "sha256"), ("13", "sha512"), ("16", "sha3_256"), ("d501", "md5")],
)
def test_multihashes_name_their_algorithm(code, name):
    digest = hashlib.new(name, b"content").digest()
    assert find_multihash(f"{code}{len(digest):02x}{digest.hex()}") == (name, digest.hex())


@pytest.mark.parametrize("text", ["", "12", "1220ab", "zz20", "ff" * 40, "9920" + "00" * 32, "12 20"])
def test_what_is_no_multihash_is_none(text):
    assert find_multihash(text) is None
