"""Chips that are streamed from the Hub and from a public place, both on the loopback interface."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from prithvi_hf.data import load_dataset
from prithvi_hf.data.streaming import open_streams
from tests.finetune_factory import make_chips
from tests.hub_server import HubServer


ROUND_TRIP = """
import sys
import numpy as np
import pytest
import prithvi_hf
from prithvi_hf.data import load_dataset
from prithvi_hf.data.streaming import open_streams

chips = load_dataset("sen1floods11", sys.argv[1], cache_dir=sys.argv[2])
chips.push_to_hub("tester/floods")
found = open_streams("tester/floods")
assert sorted(found) == sorted(chips)
for name, split in found.items():
    assert split["id"] == chips[name]["id"][:]
    for own, row in zip(split, chips[name], strict=True):
        assert np.array_equal(own["image"].read(), row["image"].read())
        assert np.array_equal(own["mask"].read(), row["mask"].read())
print("read", len(found["train"]), "chips of", split.groups[0][0].split("@")[0])
"""


@pytest.mark.slow
def test_a_dataset_that_was_pushed_to_the_hub_is_streamed_from_there(tmp_path):
    with HubServer(tmp_path / "home") as server:
        words = [sys.executable, "-c", ROUND_TRIP, str(make_chips(tmp_path / "chips")), str(tmp_path / "cache")]
        done = subprocess.run(words, env=server.env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "read 4 chips of hf://datasets/tester/floods" in done.stdout
    assert not [path for path in (tmp_path / "home").rglob("*.parquet") if path.is_file()]  # nothing was downloaded


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_public_dataset_is_streamed_file_by_file(tmp_path):
    root = make_chips(tmp_path / "bucket")
    expected = load_dataset("sen1floods11", root, split="train", cache_dir=str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        found = open_streams("sen1floods11", base_url=f"http://127.0.0.1:{server.server_address[1]}")["train"]
        assert found["id"] == expected["id"][:]
        assert np.array_equal(found[1]["image"].read(), expected[1]["image"].read())
        server.shutdown()
