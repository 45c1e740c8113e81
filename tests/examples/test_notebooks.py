# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The notebooks, executed from their first cell to their last in a kernel of their own, without a network."""

import json
import re

import pytest

from tests.docs.pages import ROOT


NOTEBOOKS = ROOT / "examples" / "notebooks"
SETTINGS = re.compile(r"PRITHVI_HF_(DATA|MODEL|STEPS|SCENE|LABELS|ATTRIBUTE|IRRIGATION_DATA|RUN|OTHER_RUN)")


def read_notebook(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Execute a notebook; what it prints, the number of its figures, and the folder that it writes to."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebooks`")
    pytest.importorskip("ipykernel", reason="needs the extra `notebooks`")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")
    monkeypatch.setenv("PRITHVI_HF_NOTEBOOKS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("DATA", "MODEL", "STEPS", "SCENE", "LABELS", "ATTRIBUTE", "IRRIGATION_DATA", "RUN", "OTHER_RUN"):
        monkeypatch.delenv(f"PRITHVI_HF_{name}", raising=False)

    def run(name):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(NOTEBOOKS)}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
        figures = sum("image/png" in output.get("data", {}) for output in outputs)
        return printed, figures, tmp_path / name

    return run


def find_number(pattern, printed):
    return float(re.search(pattern, printed)[1])


@pytest.mark.slow
def test_flood_mapping(execute):
    printed, figures, folder = execute("1_flood_mapping")
    score = find_number(r"mean IoU +(\d\.\d+)", printed)
    assert score > 0.7
    threshold, chance = (find_number(rf"{name} +(\d\.\d+)", printed) for name in ("best threshold", "land everywhere"))
    assert score > threshold > chance
    assert find_number(r"([\d.]+) km2 of water", printed) > 1
    assert figures == 7
    assert (folder / "map.tif").is_file()


@pytest.mark.slow
def test_your_own_data(execute):
    for package in ("geopandas", "pyogrio", "shapely"):
        pytest.importorskip(package, reason="needs the extra `vector`")
    printed, figures, folder = execute("2_your_own_data")
    assert find_number(r"blocks that were not seen: (\d\.\d+)", printed) > 0.5
    assert figures == 6
    assert "image_mean" in (folder / "stats.yaml").read_text()
    assert (folder / "map.tif").is_file()


@pytest.mark.slow
def test_three_dates_tell_irrigation_better_than_one(execute):
    printed, figures, folder = execute("3_three_date_irrigation")
    one, three = (find_number(rf"{name}: mean IoU (\d\.\d+)", printed) for name in ("august", "three_dates"))
    assert three > one + 0.05
    assert three > 0.7
    assert figures == 7
    assert (folder / "map.tif").is_file()


@pytest.mark.slow
def test_an_adapter_is_smaller_than_the_whole_model(execute):
    pytest.importorskip("peft", reason="needs the extra `peft`")
    printed, figures, _ = execute("4_lora_or_everything")
    rows = dict(re.findall(r"^(full|lora|frozen) +(.+)$", printed, flags=re.MULTILINE))
    trained = {name: int(row.split()[0].replace(",", "")) for name, row in rows.items()}
    assert trained["frozen"] == 0 < trained["lora"] < trained["full"] / 4
    assert all(float(row.split()[3]) > 0.6 for row in rows.values())
    assert float(rows["lora"].split()[1]) < float(rows["full"].split()[1])
    assert "95 % interval" in printed
    assert figures == 2


@pytest.mark.slow
def test_numbers_by_hand_are_those_of_the_package(execute):
    printed, figures, _ = execute("5_what_the_numbers_mean")
    by_hand, package = re.search(r"mean IoU +(\d\.\d+) and from the package (\d\.\d+)", printed).groups()
    assert by_hand == package
    assert float(package) > 0.6
    assert printed.count("4 chips   mean IoU") == 8
    low, high = map(float, re.search(r"drawing groups: (\d\.\d+) to (\d\.\d+)", printed).groups())
    assert low < float(package) < high
    assert re.search(r"B is (better|worse) by", printed)
    assert figures == 2


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_no_outputs_of_a_machine(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 30_000
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook["cells"])
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert not re.search(r"(?<![\w.])/(?:home|work|root|Users|mnt)/", text)
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (path.parent / link).exists(), link
