# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page of a run: every number on it is that of the stored chips, it needs no other file, and trusts no name."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from prithvi_hf.metrics.calibration import calibration_metrics, count_bins
from prithvi_hf.training.chip_figures import make_chip_table, write_chip_figures
from prithvi_hf.training.report import write_report
from tests.command_line import run


class Page(HTMLParser):
    """The numbers of a page by name, its tags, and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.numbers, self.tags, self.sources, self.text = {}, [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag == "data":
            name, number = values["data-figure"], float(values["value"])
            assert self.numbers.setdefault(name, number) == number  # the same wherever it stands

    def handle_data(self, data):
        self.text += data


def iou_of(matrix):
    hits = np.diag(matrix)
    return hits / (matrix.sum(0) + matrix.sum(1) - hits)


@pytest.fixture(scope="module")
def page(finished):
    return Page(finished / "report.html")


def test_every_number_is_that_of_the_stored_chips(finished, page):
    """Computed here from the raw columns, by nothing of the package but their names."""
    rows = parquet.read_table(finished / "chip_figures.parquet").to_pylist()
    expected = {}
    for prefix in ("eval", "test", "bolivia"):
        own = [row for row in rows if row["prefix"] == prefix]
        matrices = np.array([row["confusion"] for row in own]).reshape(-1, 2, 2)
        matrix = matrices.sum(0)
        iou, precision, recall = iou_of(matrix), np.diag(matrix) / matrix.sum(0), np.diag(matrix) / matrix.sum(1)
        f1 = 2 * np.diag(matrix) / (matrix.sum(0) + matrix.sum(1))
        boundary = [np.sum([row[f"boundary_{name}"] for row in own], axis=0) for name in ("intersection", "union")]
        boundary = boundary[0] / boundary[1]
        weights = [row["loss_weight"] for row in own]
        expected |= {
            f"{prefix}/chips": len(own),
            f"{prefix}/mean_iou": iou.mean(),
            f"{prefix}/mean_accuracy": recall.mean(),
            f"{prefix}/overall_accuracy": np.trace(matrix) / matrix.sum(),
            f"{prefix}/mean_f1": f1.mean(),
            f"{prefix}/mean_boundary_iou": boundary.mean(),
            f"{prefix}/loss": np.average([row["loss"] for row in own], weights=weights),
        }
        names = {"iou": iou, "f1": f1, "precision": precision, "recall": recall, "boundary_iou": boundary}
        for name, values in names.items():
            expected |= {f"{prefix}/per_category_{name}/{place}": value for place, value in enumerate(values)}
        expected |= {f"{prefix}/confusion/{i}/{j}": matrix[i, j] for i in range(2) for j in range(2)}
        if len(own) > 1:  # the worst chips
            expected |= {f"{prefix}/chip/{place}": iou_of(one).mean() for place, one in enumerate(matrices)}
        if "bin_count" in own[0]:
            bins = [np.sum([row[f"bin_{kind}"] for row in own], axis=0) for kind in ("count", "correct", "confidence")]
            expected |= reliability_of(prefix, *(part.reshape(2, -1) for part in bins))
    record = json.loads((finished / "run.json").read_text())["data"]
    expected |= {f"data/{split}/chips": values["chips"] for split, values in record.items()}
    found = {name: value for name, value in page.numbers.items() if "/group/" not in name}
    results = json.loads((finished / "all_results.json").read_text())
    for prefix in ("eval", "test"):  # bolivia has one chip
        for name in ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1", "mean_boundary_iou"):
            low, high = results[f"{prefix}_{name}_interval"]
            expected |= {f"{prefix}/{name}/low": low, f"{prefix}/{name}/high": high}
    assert found == pytest.approx(expected, rel=1e-12)
    assert page.numbers["eval/mean_iou"] == results["eval_mean_iou"]


def reliability_of(prefix, count, correct, confidence):
    errors = {f"{prefix}/calibration_error": np.abs(confidence.sum(0) - correct.sum(0)).sum() / count.sum()}
    for place in range(len(count)):
        if count[place].sum():
            error = np.abs(confidence[place] - correct[place]).sum() / count[place].sum()
            errors[f"{prefix}/per_category_calibration_error/{place}"] = error
    for place in np.flatnonzero(count.sum(0)).tolist():
        total = count.sum(0)[place]
        errors[f"{prefix}/reliability/{place}/count"] = total
        errors[f"{prefix}/reliability/{place}/confidence"] = confidence.sum(0)[place] / total
        errors[f"{prefix}/reliability/{place}/accuracy"] = correct.sum(0)[place] / total
    return errors


def test_the_page_is_whole_and_small(finished, page):
    assert not {"script", "link", "iframe", "object", "base"} & {*page.tags}
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert len(page.sources) == len(list((finished / "chip_pictures").glob("*.webp"))) == 3  # of three chips
    assert "http" not in re.sub(r"data:image\S+", "", (finished / "report.html").read_text())
    assert (finished / "report.html").stat().st_size < 1_000_000
    assert page.tags.count("svg") >= 5
    for heading in ("Summary", "Curves", "Confusion matrix", "Best and worst chips", "Data", "Options"):
        assert heading in page.text


def test_the_command_makes_the_same_page_from_the_files(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / finished.name, ignore=shutil.ignore_patterns("checkpoint-*"))
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    (folder / "model.safetensors").unlink()
    assert run("report", folder) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    assert (folder / "report.html").read_text() == before
    for name in ("run.json", "trainer_state.json", "recipe.yaml", "all_results.json"):  # it tells what there is
        (folder / name).unlink()
    assert run("report", folder) == 0
    assert Page(folder / "report.html").numbers["eval/mean_iou"]


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (lambda folder: (folder / "chip_figures.parquet").unlink(), "Expected figures of chips in"),
        (lambda folder: (folder / "chip_figures.parquet").write_bytes(b"x"), "to be a Parquet file"),
        (lambda folder: (folder / "run.json").write_text("[]"), "to be the record of a run"),
        (lambda folder: (folder / "trainer_state.json").write_text("{"), "to be JSON"),
        (shutil.rmtree, "Expected the folder of a run"),
    ],
)
def test_what_is_missing_or_damaged_is_named(finished, tmp_path, capsys, break_it, part):
    folder = shutil.copytree(finished, tmp_path / "OUT", ignore=shutil.ignore_patterns("checkpoint-*", "report.html"))
    break_it(folder)
    assert run("report", folder) == 2
    assert part in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def read_headline(folder):
    """The split of the first figures, the sentence under it, and the names of the figures."""
    text = write_report(folder).read_text()
    start, end = text.index('id="headline"'), text.index('id="summary"')
    [name, said] = re.search(r">On (\w+) .*?<p class=\"soft\">(.*?)</p>", text[start:end], re.DOTALL).groups()
    return name, said, re.findall(r'<b><data data-figure="([^"]+)"', text[start:end])


def test_the_first_figures_are_of_a_test_that_chose_nothing(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "OUT", ignore=shutil.ignore_patterns("checkpoint-*"))
    split, said, figures = read_headline(folder)
    assert (split, said) == (
        "test",
        "The training has not used these chips: they chose neither the checkpoint nor the temperature.",
    )
    names = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1", "mean_boundary_iou", "calibration_error")
    assert figures == [f"test/{name}" for name in names]
    record = json.loads((folder / "run.json").read_text())
    for name, expected in (("test", "bolivia"), ("bolivia", "validation")):  # tests of the validation's own files
        record["data"][name]["digest"] = record["data"]["validation"]["digest"]
        (folder / "run.json").write_text(json.dumps(record))
        split, said, _ = read_headline(folder)
        assert split == expected
    assert "A test split of other chips tells more." in said


EVIL = "<script>alert(1)</script>\" onload='x' &amp;"


def make_table(task, columns, names, **options):
    count = len(next(iter(columns.values())))
    about = {"split": EVIL, "prefix": EVIL, "chips": [f"{EVIL}{i}" for i in range(count)], "class_names": names}
    beside = {"loss": np.full(count, 0.5), "loss_weight": np.ones(count, np.int64)}
    return make_chip_table({**beside, **columns}, task=task, **about, **options)


def test_names_from_strangers_are_text(tmp_path):
    matrix = np.array([[5, 1, 2, 8], [4, 0, 3, 9]])
    table = make_table("segmentation", {"confusion": matrix}, [EVIL, "water"], groups=[EVIL, EVIL])
    write_chip_figures(tmp_path / "chip_figures.parquet", [table])
    (tmp_path / "recipe.yaml").write_text(json.dumps({EVIL: EVIL}))
    (tmp_path / "secret.webp").write_bytes(b"secret")
    picture = {"prefix": EVIL, "chip": EVIL, "is_best": True, "panels": [EVIL]}
    stolen = [{**picture, "file": name} for name in ("../secret.webp", str(tmp_path / "secret.webp"))]
    (tmp_path / "chip_pictures").mkdir()
    (tmp_path / "chip_pictures" / "best-1.webp").write_bytes(b"RIFF")
    record = {"data": {}, "versions": {EVIL: EVIL}, "machine": {EVIL: EVIL}}
    record["pictures"] = [{**picture, "file": "best-1.webp"}, *stolen]
    (tmp_path / "run.json").write_text(json.dumps(record))
    history = [{"step": step, f"eval_iou/{EVIL}": 0.1, "loss": 1.0} for step in (1, 2)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history, "global_step": 2}))
    page = Page(write_report(tmp_path))
    assert "script" not in page.tags
    assert "onload" not in (tmp_path / "report.html").read_text().replace("onload=&#39;", "")
    assert page.text.count("<script>alert(1)</script>") > 10
    assert page.sources == ["data:image/webp;base64,UklGRg=="]  # and no file from outside


def test_groups_and_reliability_are_there_where_they_were_counted(tmp_path):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 400) * 2, torch.randint(0, 3, (2, 400))
    bins = [count_bins(one, own) for one, own in zip(logits, labels, strict=True)]
    columns = {
        f"bin_{name}": np.stack([one[place].flatten().numpy() for one in bins])
        for place, name in enumerate(("count", "correct", "confidence"))
    }
    predicted = logits.argmax(1)
    matrices = [torch.bincount(own * 3 + one, minlength=9).numpy() for own, one in zip(labels, predicted, strict=True)]
    columns["confusion"] = np.stack(matrices)
    table = make_table("segmentation", columns, ["a", "b", "c"], groups=["Ghana", "Spain"])
    write_chip_figures(tmp_path / "chip_figures.parquet", [table])
    found = Page(write_report(tmp_path)).numbers
    sums = [
        torch.from_numpy(columns[f"bin_{name}"].sum(0).reshape(3, -1)) for name in ("count", "correct", "confidence")
    ]
    assert found[f"{EVIL}/calibration_error"] == calibration_metrics(*sums)["calibration_error"]
    assert sum(value for name, value in found.items() if name.endswith("/count")) == 800
    for group, matrix in zip(("Ghana", "Spain"), columns["confusion"], strict=True):
        assert found[f"{EVIL}/group/{group}/mean_iou"] == pytest.approx(iou_of(matrix.reshape(3, 3)).mean())


def test_other_tasks_have_pages_of_their_own(tmp_path):
    sums = np.array([[10, 1, 4, 6, 50, 300], [20, -3, 5, 9, 80, 400], [0, 0, 0, 0, 0, 0]], np.float64)
    (tmp_path / "values").mkdir()
    write_chip_figures(
        tmp_path / "values" / "chip_figures.parquet", [make_table("regression", {"error_sums": sums}, [])]
    )
    values = Page(write_report(tmp_path / "values"))
    assert values.numbers[f"{EVIL}/rmse"] == pytest.approx((15 / 30) ** 0.5)
    assert "Mean values of chips" in values.text
    logits, labels = np.array([[2.0, 1], [0, 3], [1, 0]]), np.array([[0.0], [1], [1]])
    (tmp_path / "classes").mkdir()
    table = make_table("classification", {"logits": logits, "labels": labels}, ["Forest", "River"])
    write_chip_figures(tmp_path / "classes" / "chip_figures.parquet", [table])
    classes = Page(write_report(tmp_path / "classes"))
    assert classes.numbers[f"{EVIL}/accuracy"] == pytest.approx(2 / 3)
    assert [classes.numbers[f"{EVIL}/confusion/{i}/{j}"] for i in range(2) for j in range(2)] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", {"data": {"train": {"chips": None}}, "pictures": []}),
        ("run.json", {"data": {}, "versions": [], "pictures": []}),
        ("trainer_state.json", {"log_history": [[1]]}),
        ("trainer_state.json", {"log_history": [{"step": 1, "chips_per_second": "fast"}]}),
        ("all_results.json", {"train_runtime": float("inf")}),
    ],
)
def test_a_file_of_another_content_is_named_and_the_page_is_left_as_it_is(tmp_path, name, content):
    table = make_table("segmentation", {"confusion": np.array([[5, 1, 2, 8], [4, 0, 3, 9]])}, ["land", "water"])
    write_chip_figures(tmp_path / "chip_figures.parquet", [table])
    (tmp_path / "report.html").write_text("old")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"Expected .*{name} .*found.*Remove it"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
