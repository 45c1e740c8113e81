# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`manifest.json`: what was fetched, from where, when and by what; and what is missing.

While files come, each is noted in a journal beside it, so that a run that is killed loses no finished file.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prithvi_hf.outputs.cog import complete_or_absent, sync_to_disk


MANIFEST = "manifest.json"
_JOURNAL = ".manifest.jsonl"


class Manifest:
    """The files that are in a folder, by their paths in it.

    Args:
        folder: where the manifest is.
        request: what was asked for; only `bbox` and `whole` have to be those of an earlier run.

    Raises:
        ValueError: the folder holds what was fetched for another box, or in another way; or a manifest that is none.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self.folder, self.request = folder, dict(request)
        self.files: dict[str, dict[str, Any]] = {}
        self._items: dict[str, dict[str, Any]] = {}
        path = folder / MANIFEST
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                before, items = content["request"], content["items"]
                self._items = {item["id"]: {**item, "files": []} for item in items}
                self.files = {file["path"]: file for item in items for file in item["files"]}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: expected the manifest of an earlier fetch, found another file ({type(error).__name__}). "
                    "Choose another folder."
                ) from error
            for name in ("bbox", "whole"):
                if before.get(name) != self.request.get(name):
                    raise ValueError(
                        f"{folder}: expected files that were fetched with {name} {self.request.get(name)}, found "
                        f"those of {before.get(name)}. Choose another folder."
                    )
        journal = folder / _JOURNAL
        for line in journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.is_file() else ():
            try:
                entry = json.loads(line)
                before, file = entry["request"], entry["file"]
                is_ours = all(before[name] == self.request.get(name) for name in ("bbox", "whole"))
                self.files |= {file["path"]: file} if is_ours else {}
            except (ValueError, KeyError, TypeError):
                continue  # the line at which the run was killed

    def find(self, path: str) -> dict[str, Any] | None:
        """Give what is noted of a file, if it is there as it was written."""
        noted, place = self.files.get(path), self.folder / path
        if noted is None or not place.is_file() or place.stat().st_size != noted.get("bytes"):
            return None
        return noted if hash_file(place) == noted.get("sha256") else None

    def note(self, file: Mapping[str, Any]) -> None:
        """Note a finished file, at once."""
        self.files[file["path"]] = dict(file)
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"request": self.request, "file": file}) + "\n")

    def write(
        self, items: Sequence[Mapping[str, Any]], missing: Mapping[str, str], left_out: Mapping[str, str], tool: str
    ) -> None:
        """Write the manifest: items of this run and of earlier ones with their files, and what is missing now."""
        known = {**self._items, **{item["id"]: dict(item) for item in items}}
        files: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
        for path, file in sorted(self.files.items()):
            if file.get("item") in files and (self.folder / path).is_file():
                files[file["item"]].append(file)
        content = {
            "tool": tool,
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "request": self.request,
            "items": [{**item, "files": files[name]} for name, item in sorted(known.items()) if files[name]],
            "missing": dict(sorted(missing.items())),
            "left_out": dict(sorted(left_out.items())),
        }
        with complete_or_absent(self.folder / MANIFEST) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            sync_to_disk(part)
        (self.folder / _JOURNAL).unlink(missing_ok=True)


def hash_file(path: str | os.PathLike) -> str:
    """Give the SHA-256 digest of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_multihash(text: str) -> tuple[str, str] | None:
    """Read a `file:checksum` of STAC, a multihash: the name of the algorithm for `hashlib`, and the digest.

    Returns:
        None where it is not the multihash of an algorithm that is known here.
    """
    names = {0x11: "sha1", 0x12: "sha256", 0x13: "sha512", 0x14: "sha3_512", 0x16: "sha3_256", 0xD5: "md5"}
    try:
        content = bytes.fromhex(text)
        numbers = []
        for _ in range(2):  # the code and the length are varints: seven bits a byte, the low ones first
            number, shift = 0, 0
            while True:
                byte, content = content[0], content[1:]
                number |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            numbers.append(number)
    except (ValueError, IndexError, TypeError):
        return None
    code, length = numbers
    return (names[code], content.hex()) if code in names and len(content) == length else None
