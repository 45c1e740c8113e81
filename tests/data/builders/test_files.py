"""Folders of chips: listing, ids, days, and what is missing."""

import pytest

from prithvi_hf.data.builders.files import check_ids, list_files, make_ids, read_day, read_ids, read_text, show_some


def test_hidden_files_are_not_listed_and_links_are_followed(tmp_path):
    for name in ("b/c.tif", "a.tif", "b/._c.tif", ".hidden/d.tif"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "b" / "circle").symlink_to(tmp_path / "data")  # ends at a depth
    found = list_files(str(tmp_path / "data"))
    assert [name for name in found if "circle" not in name] == ["a.tif", "b/c.tif", "link/c.tif"]
    assert found["link/c.tif"] == str(tmp_path / "data" / "link" / "c.tif")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_files(str(tmp_path / "nowhere"))


def test_lists_of_ids(tmp_path):
    (tmp_path / "list.csv").write_bytes('\ufeffa_S2Hand.tif,1\r\n\r\n"b",2\n c/d_S2.tif \n'.encode())
    assert read_ids(str(tmp_path / "list.csv"), (".tif", "_S2Hand.tif")) == ["a", "b", "d_S2"]
    assert make_ids(["x\\y.tif"], [".tif"]) == ["y"]
    (tmp_path / "list.csv").write_bytes("für".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_text(str(tmp_path / "list.csv"))


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2022-06-21", "2022-06-21"),
        ("2022/6/21", "2022-06-21"),
        ("20220621", "2022-06-21"),
        ("2022-06-21T17:03:11Z", "2022-06-21"),
        (" 2022-06-21 17:03", "2022-06-21"),
        ("2022172", "2022-06-21"),
        ("2020366", "2020-12-31"),
        ("", None),
        ("NaT", None),
    ],
)
def test_forms_of_days(text, day):
    assert read_day(text, "x") == day


@pytest.mark.parametrize("text", ["in spring", "2022-13-01", "2022366", "2022000", "2022-06-211", "22-06-21"])
def test_texts_that_are_not_days(text):
    with pytest.raises(ValueError, match=f"table: .*{text}"):
        read_day(text, "table")


def test_missing_files_are_counted_and_some_are_named():
    check_ids(["a"], {"image": ["a"]}, "x")
    with pytest.raises(FileNotFoundError, match=r"1 without image \(b\) and 2 without mask \(a, b\)"):
        check_ids(["a", "b"], {"image": ["a"], "mask": []}, "x")
    assert show_some([str(i) for i in range(6)]) == "0, 1, 2, 3, 4, ..."
