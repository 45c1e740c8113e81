"""One server for all tests of a process, with a token, small limits, and addresses on the loopback interface."""

import http.server
import json
import threading
from functools import partial

import pytest

from tests.scene_factory import save_model, scene_pixels, write_scene
from tests.serve_factory import map_scene, start_server


class Files(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and addresses below /to/ that lead elsewhere."""

    requests = []

    def do_GET(self):
        self.requests.append(self.path)
        if self.path.startswith("/data/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/data/to/").replace("__", "//"))
            self.end_headers()
        elif self.path.startswith("/data/slow/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"II*\0")
            self.wfile.flush()
            self.server.patience.wait(30)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def file_server(tmp_path_factory):
    """A web server on the loopback interface: its folder, address and the paths that were asked for."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "data").mkdir()
    (folder / "secret").mkdir()
    write_scene(folder / "data" / "scene.tif", scene_pixels(60, 60))
    write_scene(folder / "secret" / "scene.tif", scene_pixels(60, 60))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    server.patience = threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url, server.requests, server.folder = f"http://127.0.0.1:{server.server_port}", Files.requests, folder
    yield server
    server.patience.set()
    server.shutdown()


@pytest.fixture(scope="session")
def served_model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def server(tmp_path_factory, served_model, file_server):
    """A server of a tiny model that takes 2 MB and 150,000 pixels, and fetches from one folder of the file server."""
    words = ("--max_upload", 2, "--max_pixels", 0.15, "--max_queue", 6, "--upload_timeout", 4)
    words += (
        "--allow_url",
        f"{file_server.url}/data/",
        "http://localhost:1/data",
        "--allow_private_host",
        "127.0.0.1",
    )
    started = start_server(tmp_path_factory.mktemp("server"), served_model, *words)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.fixture
def client(server):
    with server.client() as made:
        yield made


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "a scene.tif", scene_pixels(70, 90))


@pytest.fixture(scope="session")
def job(server, scene):
    """A job that has succeeded, with every output."""
    outputs = ["polygons", "quicklook", "confidence", "entropy", "probabilities"]
    with server.client() as client:
        return map_scene(client, scene, options=json.dumps({"outputs": outputs, "overlap": 0.25}))
