"""Fixtures shared by the whole suite."""

import os
import signal
from pathlib import Path

import pytest

from tests.catalog_server import catalog  # noqa: F401 - a fixture: a STAC API on the loopback interface
from tests.hub_server import hub  # noqa: F401 - a fixture: a Hub on the loopback interface


# A run in the background of a shell ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The project's reference folder, named by `PRITHVI_HF_SHARED` or lying beside the repository."""
    folder = Path(os.environ.get("PRITHVI_HF_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not (folder / "reference" / "golden").is_dir():
        pytest.skip(
            f"no reference values in {folder}: set PRITHVI_HF_SHARED to the folder that holds reference/ and data/"
        )
    return folder


@pytest.fixture(scope="session")
def golden_dir(shared_dir: Path) -> Path:
    """Folder of the golden safetensors files."""
    return shared_dir / "reference" / "golden"


@pytest.fixture(scope="session")
def flood_chips(shared_dir: Path) -> Path:
    """Folder of the eight real Sen1Floods11 chips, in the official layout."""
    return shared_dir / "data" / "sen1floods11"


@pytest.fixture
def set_threads():
    """What sets the number of torch's threads, which is put back afterwards."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model and its image processor; a module may have one of its own."""
    from tests.scene_factory import save_model

    return save_model(tmp_path_factory.mktemp("model"))
