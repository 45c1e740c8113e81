"""Original checkpoint files: what they may hold, what mmcv stores in them, and what is refused without being run."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint
from prithvi_hf.conversion.read_checkpoint import load_checkpoint
from tests.checkpoint_factory import assert_refused, masked_autoencoder, mmcv_file
from tests.golden import read_golden


def test_safetensors_are_read(tmp_path):
    save_file(masked_autoencoder(), tmp_path / "a.safetensors")
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_class_names_and_colours_stored_with_the_weights_stand_in_for_a_recipe(golden_dir, tmp_path):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    source = mmcv_file(tmp_path / "a.pth", tensors, CLASSES=("land", "flood"), PALETTE=[[0, 128, 0], [0, 0, 255]])
    report = convert_checkpoint(source, tmp_path / "out")
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (config.id2label, config.label2id) == ({0: "land", 1: "flood"}, {"land": 0, "flood": 1})
    assert config.class_colors == ["#008000", "#0000ff"]
    assert "stored with the weights" in str(report)
    again = convert_checkpoint(source, tmp_path / "set", id2label={"0": "a", "1": "b"})
    assert PrithviConfig.from_pretrained(tmp_path / "set").label2id == {"a": 0, "b": 1}
    assert "were not taken: ['land', 'flood']" in str(again)


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        ((0, 1), None),
        (("same", "same"), None),
        (None, None),
        (
            ("land", "flood", "cloud"),
            "the 3 class names stored with the weights were not taken: the head has 2 classes",
        ),
    ],
)
def test_what_is_not_a_list_of_class_names_is_not_taken(golden_dir, tmp_path, classes, note):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    report = convert_checkpoint(mmcv_file(tmp_path / "a.pth", tensors, CLASSES=classes), tmp_path / "out")
    assert PrithviConfig.from_pretrained(tmp_path / "out").id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert [note] * bool(note) == report.notes


def test_copies_of_the_averaging_hook_are_dropped_and_named(golden_dir, tmp_path):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    source = mmcv_file(tmp_path / "a.pth", tensors, averaging=True)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4)
    copies = {name: why for name, why in report.dropped.items() if name.startswith("ema_")}
    assert len(copies) == len(tensors)
    assert "EMAHook" in copies["ema_backbone_cls_token"]
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert torch.equal(model.prithvi.embeddings.cls_token, tensors["backbone.cls_token"])


def test_a_tensor_with_and_without_module_is_not_chosen_for_the_user(tmp_path):
    torch.save({"state_dict": {"cls_token": torch.zeros(1), "module.cls_token": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="each tensor once"):
        load_checkpoint(tmp_path / "a.pth")


def with_names_of_numpy_1(path):
    """The same file as numpy 1 would have written it."""
    with zipfile.ZipFile(path) as archive:
        contents = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            assert not name.endswith("data.pkl") or b"numpy._core.multiarray" in content
            archive.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return path


@pytest.mark.parametrize("variant", ["numpy 2", "numpy 1", "old format"])
def test_numbers_of_numpy_are_read(tmp_path, variant):
    types = [np.bool_, np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64]
    types += [np.uint8, np.uint16, np.uint32, np.uint64]
    meta = {kind.__name__: kind(1) for kind in types}
    content = {"meta": meta, "state_dict": {"cls_token": torch.ones(1)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=variant != "old format")
    if variant == "numpy 1":
        with_names_of_numpy_1(tmp_path / "a.pth")
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "a.pth", weights_only=True)
    assert torch.equal(load_checkpoint(tmp_path / "a.pth").state_dict["cls_token"], torch.ones(1))


def test_reading_leaves_the_rules_of_torch_as_they_were(tmp_path):
    torch.save({"meta": {"best": np.float64(1)}, "state_dict": {"cls_token": torch.ones(1)}}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


# ----------------------------------------------------------------- refused


class Executed:
    """Runs when a pickle is trusted."""

    marker = "executed"

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


SCALAR = np.float64(0).__reduce__()[0]


REFUSED = {
    "a command": lambda folder: Executed(os.system, f"touch {folder}/executed"),
    "a command in a number": lambda folder: Executed(SCALAR, Executed(os.mkdir, f"{folder}/executed"), b"x" * 8),
    "an object in a number": lambda folder: Executed(SCALAR, np.dtype("O"), Executed(os.mkdir, f"{folder}/executed")),
    "an array": lambda folder: np.zeros(3),
    "a text of numpy": lambda folder: np.str_("text"),
    "a structure": lambda folder: np.zeros(1, dtype=[("a", "f4")])[0],
    "a date": lambda folder: np.datetime64("2023-01-01"),
    "a path": lambda folder: Path("a"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("new_format", [True, False])
def test_anything_but_numbers_is_still_refused_and_nothing_runs(tmp_path, capsys, what, new_format):
    content = {"meta": {"hook_msgs": REFUSED[what](tmp_path)}, "state_dict": {"cls_token": torch.ones(1)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    message = assert_refused(capsys, tmp_path, "cannot be loaded safely", tmp_path / "a.pth")
    assert "can still be loaded" not in message
    assert "no reason given" not in message
    assert not (tmp_path / "executed").exists()


def with_pickle(path, content, pickled):
    """A file that torch wrote, with another pickle in it."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in contents.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else part)


def pickle_text(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def pickle_entry(value, key="cls_token"):
    return b"\x80\x02}" + pickle_text(key) + value + b"s."


# Where plain loading would set the state of numpy's own objects, hash tuples deeper than the stack, or take memory.
CRAFTED = {
    "a data type": b"cnumpy\ndtype\n"
    + pickle_text("f8")
    + b"\x89\x88\x87R(K\x03"
    + pickle_text("<")
    + b"NK\x00K\x00K\x00tb",
    "a state of other length": b"cnumpy\ndtype\n" + pickle_text("i4") + b"\x85R)b",
    "an object": b"cnumpy\ndtype\n" + pickle_text("O8") + b"\x89\x88\x87R",
    "a number without bytes": b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n" + pickle_text("f8") + b"\x85R"
    b"K\x05\x86R",
    "a class of numpy": b"cnumpy.dtypes\nFloat64DType\n)\x81",
    "tuples as a key": b"}" + b")" + b"\x85" * 300_000 + b"K\x01s",
    "a large array of bytes": b"cbuiltins\nbytearray\n\x8a\x07" + b"\xff" * 6 + b"\x7f\x85R",
    "a text in another code": b"c_codecs\nencode\n" + pickle_text("a") + pickle_text("zlib_codec") + b"\x86R",
    "a quantized tensor": b"ctorch._utils\n_rebuild_qtensor\n)R",
    "a sparse tensor": b"ctorch.sparse\nFloatTensor\n)\x81",
    "an unfilled tensor": b"ctorch\nFloatTensor\n\x8a\x06" + b"\xff" * 5 + b"\x7f\x85\x81",
    "a state of a dictionary": b"ccollections\nOrderedDict\n)R}" + pickle_text("items") + b"K\x01sb",
}
LIMITED = """import resource, sys
import prithvi_hf.conversion.convert_prithvi_to_hf
from prithvi_hf.cli.__main__ import main
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
for source in sys.argv[1:]:
    print(main(["convert", source, "out"]))
"""


@pytest.mark.slow
def test_crafted_files_end_with_a_message_in_little_memory(tmp_path):
    for number, value in enumerate(CRAFTED.values()):
        with_pickle(tmp_path / f"{number}.pt", {"cls_token": torch.zeros(1)}, pickle_entry(value))
    ones = torch.ones(1).as_strided((2**18, 2**18), (0, 0))  # one stored number
    deep = {"a": torch.ones(1)}
    for _ in range(20):
        deep = {"model": deep}
    cyclic = {}
    cyclic["state_dict"] = cyclic
    contents = [
        {"cls_token": ones},
        deep,
        cyclic,
        {"a\0b": torch.ones(1)},
        {"\ud800": torch.ones(1)},
        {"a" * 10**6: torch.ones(1)},
        {("a",): torch.ones(1)},
        {"patch_embed.proj.weight": torch.ones(16, 6, 1, 4, 4), "blocks.99999999.norm1.bias": torch.ones(1)},
    ]
    for number, content in enumerate(contents, start=len(CRAFTED)):
        torch.save(content, tmp_path / f"{number}.pt", _use_new_zipfile_serialization=number % 2 == 0)
    with (
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a/data.pkl", "w") as f,
    ):
        for _ in range(100):
            f.write(bytes(2**20))
    files = sorted(tmp_path.iterdir())
    arguments = [sys.executable, "-c", LIMITED, *map(str, files)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2\n" * len(files)), done.stderr[-2000:]
    messages = done.stderr.split("prithvi-hf convert: error: ")[1:]
    assert len(messages) == len(files)
    assert max(map(len, messages)) < 900
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == files


class Evil:
    def __reduce__(self):
        return (print, ("this code must not run",))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, capsys):
    source = tmp_path / "evil.pt"
    source.write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"cls_token": Evil()}, tmp_path / "evil_zip.pt")
    for path in (source, tmp_path / "evil_zip.pt"):
        with pytest.raises(ValueError, match="cannot be loaded safely") as refusal:
            convert_checkpoint(path, tmp_path / "out")
        # torch's own message begins with how to load such a file all the same.
        for advice in ("can still be loaded", "weights_only", "safe_globals", "issue"):
            assert advice not in str(refusal.value)
        assert "print" in str(refusal.value)
    assert "must not run" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_the_object_that_a_pickle_asks_for_is_named(tmp_path, protocol, recwarn):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=protocol))
    with pytest.raises(ValueError, match=r"asks for (\w+\.)?print\)"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not [warning for warning in recwarn if "issue" in str(warning.message)]


def test_files_that_are_not_checkpoints(tmp_path):
    text = tmp_path / "a.pt"
    text.write_text("hello")
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match="cannot be loaded safely"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_checkpoint(tmp_path / "nothing.pt")


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    """A few bytes of one tensor that are others, as a bad disk or line leaves them."""
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda content: content[:-40], lambda content: b"", lambda content: b"<html>"]
)
def test_damaged_files_are_refused(golden_dir, tmp_path, capsys, damage):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    source.write_bytes(damage(source.read_bytes()))
    assert_refused(capsys, tmp_path, "a.pth", source, "--recipe", "sen1floods11")


@pytest.mark.parametrize("source", ["https://example.com/a.pt", "HTTP://example.com/a.pt", "s3://bucket/a.pt"])
def test_an_address_as_source(tmp_path, capsys, source):
    assert "hf://" in assert_refused(capsys, tmp_path, f"the address {source}. Download", source)


def test_a_folder_as_source(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    assert_refused(capsys, tmp_path, f"found the folder {folder}. Name a file in it, which holds no .pt", folder)
    (folder / "a.pt").touch()
    assert_refused(capsys, tmp_path, f"found the folder {folder}. Name a file in it: a.pt", folder)
