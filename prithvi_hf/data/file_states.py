# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Size and time of many files, by which a later start knows that they are unchanged."""

import os
from collections.abc import Iterable


SIDE_FILES = (".aux.xml", ".msk")
"""Endings of the files beside a GeoTIFF from which GDAL takes georeference, tags and masks."""

FileState = tuple[int, ...]
"""Size and time of modification (ns) of a file and of each of its side files, -1 for one that is absent."""


def read_file_states(paths: Iterable[str]) -> list[FileState]:
    """Read the state of each file and its side files.

    A folder is listed once, so that side files which are not there, as almost all of them, cost nothing.
    """
    listings: dict[str, frozenset[str]] = {}
    states = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listings:
            try:
                listings[folder] = frozenset(os.listdir(folder or os.curdir))
            except OSError:
                listings[folder] = frozenset()
        listing, state = listings[folder], []
        for ending in ("", *SIDE_FILES):
            size = time = -1
            if name + ending in listing:
                try:
                    status = os.stat(path + ending)
                    size, time = status.st_size, status.st_mtime_ns
                except OSError:  # gone meanwhile, or a link to nothing
                    pass
            state += [size, time]
        states.append(tuple(state))
    return states
