# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A Hub on the loopback interface: as much of its HTTP interface as huggingface_hub 2 needs to push and to load.

Repositories live in memory. Text travels inside the commit request, binary files by the basic transfer of Git LFS, as
on the real Hub with Xet switched off. There are no pull requests, tags or private repositories.
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import yaml


USER = "tester"
TOKEN = "hf_loopback"
DATE = "2026-01-01T00:00:00.000Z"
LARGE_FILES = (".safetensors", ".bin", ".parquet", ".arrow", ".tif", ".tiff", ".png", ".tgz", ".gz", ".zip")
UNAVAILABLE = "unavailable"
# What would send a child process elsewhere than to this server and its own empty cache.
MISLEADING_VARIABLES = {
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_MODULES_CACHE",
    "HF_DATASETS_CACHE",
    "HF_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
}


class HubError(Exception):
    """An answer other than success: status, the Hub's own error code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(" ".join(message.split()))  # it becomes a header line
        self.status, self.code = status, code


def blob_id(content: bytes) -> str:
    """Name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def content_id(path: str, content: bytes) -> str:
    """What huggingface_hub compares to skip unchanged files, and the ETag of a download."""
    return hashlib.sha256(content).hexdigest() if path.endswith(LARGE_FILES) else blob_id(content)


def card_metadata(files: dict[str, bytes]) -> dict:
    """The YAML header of a repository's README.md; empty when there is none."""
    match = re.match(r"---\r?\n(.*?)\r?\n---", files.get("README.md", b"").decode(), flags=re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


@dataclass
class Commit:
    """One state of a repository: every file by its path."""

    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A repository: its commits by id, and where its branches point."""

    url: str
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        """The commit that a branch or a commit id names."""
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def add(self, branch: str, message: str, files: dict[str, bytes]) -> Commit:
        """Puts a commit on a branch."""
        oid = hashlib.sha1(f"{len(self.commits)} {self.url} {branch} {message}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, message, files)
        self.branches[branch] = oid
        return self.commits[oid]


class HubServer:
    """The server; a context manager that answers while it is open.

    Attributes:
        endpoint: where it answers, the value of `HF_ENDPOINT`.
        env: environment of a child process that shall talk to this server, with a cache of its own.
        requests: the method and path of every request so far.
        ranges: the path and the Range header of every request for a part of a file.
        faults: for a file's path, what happens to its next downloads, one per download: a number of bytes after which
            the connection breaks, `UNAVAILABLE` for status 503, or other content than the file's.
        read_only: when set, commits are refused with status 403.
        refusals: what happens to the next requests that write, by the name of their route (`store` is a large file,
            `commit`, `create`): a status that is answered, or None where the connection breaks.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[tuple[str, str]] = []
        self.faults: dict[str, list[int | str | bytes]] = {}
        self.read_only = False
        self.refusals: dict[str, list[int | None]] = {}
        self.lock = threading.Lock()
        self.large_files: dict[str, bytes] = {}  # by their SHA-256
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """The environment of a child process."""
        kept = {name: value for name, value in os.environ.items() if name not in MISLEADING_VARIABLES}
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def redirect_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sends the Hub calls of the running process here. Remote code needs a child process with `env` instead."""
        import datasets
        import huggingface_hub
        import transformers.utils.hub

        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(self.home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", self.endpoint)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.endpoint)
        for name in ("HF_TOKEN", "NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, self.env[name])

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """The content of every file of a repository, by path."""
        return dict(self.repository(f"{repo_type}s", repo_id).find(revision).files)

    def json(self, repo_id: str, path: str, **kwargs: str) -> dict:
        """A JSON file of a repository."""
        return json.loads(self.files(repo_id, **kwargs)[path])

    def commits(self, repo_id: str, repo_type: str = "model") -> list[Commit]:
        """The commits of a repository, oldest first, without the empty one that creates it."""
        return list(self.repository(f"{repo_type}s", repo_id).commits.values())[1:]

    def repository(self, kind: str, repo_id: str) -> Repository:
        """A repository by kind (`models`, `datasets` or `spaces`) and id."""
        if (kind, repo_id) not in self._repositories:
            raise HubError(404, "RepoNotFound", f"Repository not found: {kind}/{repo_id}")
        return self._repositories[kind, repo_id]

    def create_repository(self, kind: str, repo_id: str) -> Repository:
        """Makes a repository whose only commit is empty."""
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"{self.endpoint}/{prefix}{repo_id}"
        if (kind, repo_id) in self._repositories:
            raise HubError(409, "RepoExists", "You already created this repo")
        repository = self._repositories[kind, repo_id] = Repository(url)
        repository.add("main", "initial commit", {})
        return repository

    def put_files(self, repo_id: str, files: dict[str, bytes], repo_type: str = "dataset") -> Commit:
        """Adds files to a repository in one commit, as if they had been pushed; makes it if need be."""
        kind = f"{repo_type}s"
        known = (kind, repo_id) in self._repositories
        repository = self.repository(kind, repo_id) if known else self.create_repository(kind, repo_id)
        return repository.add("main", f"commit {len(repository.commits)}", repository.find("main").files | files)

    def downloads(self, path: str) -> int:
        """How often a download of a file was begun or continued."""
        return sum(method == "GET" and url.endswith(f"/{quote(path)}") for method, url in self.requests)

    def delete_repository(self, kind: str, repo_id: str) -> None:
        """Forgets a repository."""
        self.repository(kind, repo_id)
        del self._repositories[kind, repo_id]


PREFIX = r"/(?:(?P<kind>datasets|spaces)/)?"
REPO = r"(?P<repo_id>[^/]+(?:/[^/]+)?)"  # an id without a user name is asked for too, and never found
API = rf"/api/(?P<kind>models|datasets|spaces)/{REPO}"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_card"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"{API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", rf"{PREFIX}{REPO}\.git/info/lfs/objects/batch", "large_files"),
    ("PUT", r"/large-files/(?P<oid>[0-9a-f]{64})", "store"),
    ("GET", rf"{PREFIX}{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
OPEN_TO_ALL = {"validate_card", "paths_info", "store"}


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection; each method below answers one kind of request and returns what goes out as JSON."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Writes no log; the server keeps its requests."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()  # the end of the line after each chunk
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, method: str) -> None:
        self.hub: HubServer = self.server.hub
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read_body()
        self.hub.requests.append((self.command, url.path))
        try:
            with self.hub.lock:
                answer = self._dispatch(method, url.path)
            if answer is not None:
                self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error), "Content-Type": "application/json"}
            self._send(
                error.status, json.dumps({"error": str(error), "errors": [{"message": str(error)}]}).encode(), headers
            )

    def _dispatch(self, method: str, path: str) -> dict | list | None:
        for route_method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path) if route_method == method else None
            if match:
                if method != "GET" and name not in OPEN_TO_ALL:
                    self._check_token()
                if self.hub.refusals.get(name):
                    status = self.hub.refusals[name].pop(0)
                    if status is None:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return None
                    raise HubError(status, "Refused", f"refused with {status}")
                arguments = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                return getattr(self, name)(**arguments)
        raise HubError(404, "NotFound", f"This server knows no {method} {path}")

    def _send(self, status: int, content: bytes, headers: dict[str, str], break_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:break_after])
        self.close_connection = self.close_connection or break_after is not None

    def _check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise HubError(401, "Unauthorized", "Invalid credentials in Authorization header")

    def whoami(self) -> dict:
        self._check_token()
        return {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}}

    def validate_card(self) -> dict:
        try:
            card_metadata({"README.md": json.loads(self.body)["content"].encode()})
        except yaml.YAMLError as error:
            raise HubError(400, "BadRequest", f"the header is not YAML: {error}") from error
        return {"errors": [], "warnings": []}

    def _named_repository(self) -> tuple[str, str]:
        asked = json.loads(self.body)
        return f"{asked.get('type') or 'model'}s", f"{asked.get('organization') or USER}/{asked['name']}"

    def create(self) -> dict | None:
        kind, repo_id = self._named_repository()
        try:
            repository = self.hub.create_repository(kind, repo_id)
        except HubError as error:
            # the client reads the address out of this refusal when told that the repository may exist
            url = self.hub.repository(kind, repo_id).url
            content = json.dumps({"error": str(error), "url": url}).encode()
            return self._send(error.status, content, {"X-Error-Code": error.code})
        return {"url": repository.url, "name": repo_id}

    def delete(self) -> dict:
        self.hub.delete_repository(*self._named_repository())
        return {}

    def preupload(self, kind: str, repo_id: str, revision: str) -> dict:
        present = self.hub.repository(kind, repo_id).find(revision).files
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        return {
            "files": [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(LARGE_FILES) else "regular",
                    "shouldIgnore": False,
                    "oid": content_id(path, present[path]) if path in present else None,
                }
                for path in paths
            ]
        }

    def large_files(self, repo_id: str, kind: str = "models") -> dict:
        self.hub.repository(kind, repo_id)
        objects = [{"oid": item["oid"], "size": item["size"]} for item in json.loads(self.body)["objects"]]
        for item in objects:
            if item["oid"] not in self.hub.large_files:
                item["actions"] = {"upload": {"href": f"{self.hub.endpoint}/large-files/{item['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "BadRequest", f"the content is not that of {oid}")
        self.hub.large_files[oid] = self.body
        return {}

    def commit(self, kind: str, repo_id: str, revision: str) -> dict:
        if self.hub.read_only or "create_pr" in self.query:
            raise HubError(403, "Forbidden", "this server takes no commit and no pull request now")
        repository = self.hub.repository(kind, repo_id)
        parent = repository.find(revision)
        header, files = {}, dict(parent.files)
        for line in self.body.splitlines():
            item = json.loads(line)
            if item["key"] == "header":
                header = item["value"]
            else:
                self._change(files, item["key"], item["value"])
        if header.get("parentCommit", parent.oid) != parent.oid:
            raise HubError(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
        commit = repository.add(revision, header["summary"], files)
        return {"success": True, "commitOid": commit.oid, "commitUrl": f"{repository.url}/commit/{commit.oid}"}

    def _change(self, files: dict[str, bytes], key: str, value: dict) -> None:
        path = value["path"]
        if key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile" and value["oid"] in self.hub.large_files:
            files[path] = self.hub.large_files[value["oid"]]
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]
        else:
            raise HubError(400, "BadRequest", f"cannot {key} {path}")

    def branch(self, kind: str, repo_id: str, branch: str) -> dict:
        repository = self.hub.repository(kind, repo_id)
        if branch in repository.branches:
            raise HubError(409, "BranchExists", f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repository.branches[branch] = repository.find(start).oid
        return {}

    def info(self, kind: str, repo_id: str, revision: str = "main") -> dict:
        commit = self.hub.repository(kind, repo_id).find(revision)
        metadata = card_metadata(commit.files)
        siblings = [
            {"rfilename": path, "size": len(content), "blobId": blob_id(content)}
            for path, content in commit.files.items()
        ]
        described = {key: metadata[key] for key in ("pipeline_tag", "library_name") if key in metadata}
        facts = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0}
        state = {"sha": commit.oid, "lastModified": DATE, "createdAt": DATE, "siblings": siblings}
        return {"id": repo_id, "tags": metadata.get("tags") or [], "cardData": metadata, **described, **facts, **state}

    def tree(self, kind: str, repo_id: str, revision: str, path: str = "") -> list[dict]:
        files = self.hub.repository(kind, repo_id).find(revision).files
        root = f"{path}/" if path else ""
        inside = {name: content for name, content in files.items() if name.startswith(root)}
        if path and not inside:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}")
        folders = {f"{root}{name}" for name in _folders(name.removeprefix(root) for name in inside)}
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            depth = root.count("/")
            folders = {name for name in folders if name.count("/") == depth}
            inside = {name: content for name, content in inside.items() if name.count("/") == depth}
        return [_describe_folder(name) for name in sorted(folders)] + [_describe(*item) for item in inside.items()]

    def paths_info(self, kind: str, repo_id: str, revision: str) -> list[dict]:
        files = self.hub.repository(kind, repo_id).find(revision).files
        asked = parse_qs(self.body.decode()).get("paths", [])
        folders = _folders(files)
        found = [_describe(path, files[path]) for path in asked if path in files]
        return found + [_describe_folder(path) for path in asked if path in folders]

    def resolve(self, repo_id: str, revision: str, path: str, kind: str = "models") -> None:
        commit = self.hub.repository(kind, repo_id).find(revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if path not in commit.files:
            message = f"{path} does not exist on {revision}"
            content = json.dumps({"error": message}).encode()
            return self._send(404, content, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": message})
        content = commit.files[path]
        fault = self.hub.faults[path].pop(0) if self.command == "GET" and self.hub.faults.get(path) else None
        if fault == UNAVAILABLE:
            raise HubError(503, "ServiceUnavailable", "come back later")
        name = quote(path.rsplit("/", 1)[-1])
        headers |= {"ETag": f'"{content_id(path, content)}"', "Content-Disposition": f'inline; filename="{name}";'}
        return self._send_range(fault if isinstance(fault, bytes) else content, headers, fault)

    def _send_range(self, content: bytes, headers: dict[str, str], fault: int | bytes | None) -> None:
        break_after = fault if isinstance(fault, int) else None
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return self._send(200, content, headers, break_after)
        self.hub.ranges.append((urlsplit(self.path).path, match[0]))
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first > last:
            return self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
        span = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], {**headers, "Content-Range": span}, break_after)


def _folders(paths: Iterator[str] | dict[str, bytes]) -> set[str]:
    """Find every folder that a path is in, at any depth."""
    return {path[: match.start()] for path in paths for match in re.finditer("/", path)}


def _describe(path: str, content: bytes) -> dict:
    """A file as the tree lists it."""
    described = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if path.endswith(LARGE_FILES):
        described["lfs"] = {"oid": content_id(path, content), "size": len(content), "pointerSize": 130}
    return described


def _describe_folder(path: str) -> dict:
    """A folder as the tree lists it."""
    return {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """An empty Hub on the loopback interface."""
    with HubServer(tmp_path_factory.mktemp("hf_home")) as server:
        yield server
