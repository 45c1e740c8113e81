"""States of files: what tells a later start that nothing has changed."""

import os

import pytest

from prithvi_hf.data.file_states import read_file_states


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "chip.tif"
    path.write_bytes(b"pixels")
    return path


def change_content(path):
    path.write_bytes(b"more pixels")


def change_time(path):
    os.utime(path, ns=(0, 1))


def add_side_file(path):
    path.with_name(path.name + ".aux.xml").write_text("<PAMDataset/>")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [change_content, change_time, add_side_file, remove])
def test_every_change_of_a_file_or_beside_it_is_another_state(path, change):
    before = read_file_states([str(path)])
    assert read_file_states([str(path)]) == before
    change(path)
    assert read_file_states([str(path)]) != before


def test_a_missing_file_folder_and_dangling_link_have_a_state_too(tmp_path, path):
    link = tmp_path / "link.tif"
    link.symlink_to(tmp_path / "nothing")
    states = read_file_states([str(tmp_path / "gone.tif"), str(tmp_path / "none" / "a.tif"), str(link), str(path)])
    assert states[:3] == [(-1,) * 6] * 3
    assert states[3][0] == 6
