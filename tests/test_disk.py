# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders that cannot be written, and errors that mean a full disk."""

import errno

import pytest

from prithvi_hf.disk import check_writable_folder, describe_disk_full, explain_disk_full, is_disk_full


def test_folders_are_checked_and_nothing_is_made(tmp_path):
    check_writable_folder(tmp_path / "new" / "deep", "the output")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"the output .*file"):
            check_writable_folder(wrong, "the output")
    with pytest.raises(PermissionError, match="/proc"):
        check_writable_folder("/proc/none", "the output")


def test_errors_that_mean_a_full_disk():
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        assert is_disk_full(OSError(number, "text"))
    assert not is_disk_full(OSError(errno.EIO, "text"))
    assert is_disk_full(RuntimeError("basic_ios::clear: iostream error"))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    assert not is_disk_full(RuntimeError("PytorchStreamReader failed reading zip archive"))
    outer = ValueError("wrapped")
    outer.__cause__ = OSError(errno.ENOSPC, "text")
    assert is_disk_full(outer)


def test_only_a_full_disk_is_explained(tmp_path):
    with (
        pytest.raises(OSError, match=f"{tmp_path}.*text.*Free some") as caught,
        explain_disk_full(tmp_path, "Free some."),
    ):
        raise OSError(errno.ENOSPC, "text")
    assert str(caught.value) == f"{describe_disk_full(tmp_path, caught.value.__cause__)} Free some."
    with pytest.raises(KeyError), explain_disk_full(tmp_path, "Free some."):
        raise KeyError("other")
