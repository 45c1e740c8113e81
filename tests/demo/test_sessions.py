# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders of visitors: nobody names those of another, and they go with the visitor."""

import os

import pytest

from prithvi_hf.demo.sessions import Sessions


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path)


def upload(folder, name):
    """A file as the server receives it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"pixels")
    return folder / name


def test_a_page_keeps_its_session_and_others_have_their_own(sessions):
    first, second = sessions.open("a"), sessions.open("b")
    assert sessions.open("a") is first
    assert first.folder != second.folder
    assert len(first.folder.name) >= 32  # it is not guessed
    assert first.folder.stat().st_mode & 0o077 == 0


def test_files_of_a_scene_have_no_other_file_beside_them(sessions, tmp_path):
    uploads = [upload(tmp_path / name, "scene.tif") for name in ("one", "two")]
    frames = sessions.take(sessions.open("a"), uploads)
    assert [frame.name for frame in frames] == ["scene.tif", "scene.tif"]
    assert all(list(frame.parent.iterdir()) == [frame] for frame in frames)


def test_another_scene_takes_the_place_of_the_first(sessions, tmp_path):
    session = sessions.open("a")
    [first] = sessions.take(session, [upload(tmp_path / "x", "first.tif")])
    [second] = sessions.take(session, [upload(tmp_path / "x", "second.tif")])
    assert not first.exists()
    assert second.exists()


def test_who_leaves_takes_all_files_along_and_stops(sessions, tmp_path):
    session = sessions.open("a")
    received = upload(tmp_path / "x", "scene.tif")
    sessions.take(session, [received])
    sessions.close("a")
    assert session.stopped.is_set()
    assert not session.folder.exists()
    assert not received.parent.exists()
    assert sessions.find("a") is None
    sessions.close("a")  # twice is no fault


def test_an_upload_that_two_visitors_share_stays_until_both_have_left(sessions, tmp_path):
    received = upload(tmp_path / "x", "scene.tif")
    for key in "ab":
        sessions.take(sessions.open(key), [received])
    sessions.close("a")
    assert received.exists()
    sessions.close("b")
    assert not received.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scene", "scene"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("..", "scene"),
        ("湖" * 99, "湖" * 26),
        ("a" * 99, "a" * 80),
    ],
)
def test_names_of_scenes_can_be_those_of_files(sessions, tmp_path, name, expected):
    session = sessions.open("a")
    session.choose([tmp_path], name)
    assert session.name == expected


def test_an_upload_that_is_gone_is_an_error(sessions, tmp_path):
    with pytest.raises(FileNotFoundError):
        sessions.take(sessions.open("a"), [tmp_path / "gone.tif"])


def test_idle_sessions_and_broken_uploads_are_swept_and_running_ones_are_not(sessions, tmp_path):
    idle, busy = sessions.open("a"), sessions.open("b")
    idle.used -= 100
    busy.used -= 100
    busy.running = 1
    begun = [upload(tmp_path, name) for name in ("tmp_old", "tmp_new")]
    os.utime(begun[0], (0, 0))
    sessions.sweep(50)
    assert [path.exists() for path in begun] == [False, True]
    assert sessions.find("a") is None
    assert sessions.find("b") is busy
    sessions.close_all()
    assert not busy.folder.exists()
