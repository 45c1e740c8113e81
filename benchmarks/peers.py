# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One forward pass on a CPU in every runtime: the plain architecture and ours in PyTorch, OpenVINO and ONNX Runtime.

Everybody has the same weights, pixels and number of threads, and is called in turns. Before anything is timed, the
logits of each are compared with those of the plain PyTorch module in float32: a runtime whose logits are further off
than its precision explains is marked as wrong, with the fraction of pixels that get the same class, and timed anyway.
(oneDNN computes the 1x16x16 `Conv3d` of the plain patch embedding wrongly in bfloat16, so "OpenVINO bfloat16, plain"
is expected to be wrong. OpenVINO's precision is set explicitly, as its default is bfloat16 on CPUs with AMX.)

Run alone: `python -m benchmarks.peers [--repeats 15] [--frames 1 3]`. The runtimes come with the extra `peers`.
"""

import argparse
import copy
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.model import TOLERANCE, Pair, has_bfloat16, make_pair
from benchmarks.timing import median_seconds
from prithvi_hf.conversion.export_prithvi import trace_graph
from prithvi_hf.conversion.quantize_prithvi import make_quantizer
from prithvi_hf.models.prithvi.exported_prithvi import check_packages


BATCHES = {1: 2, 3: 1}
"""Images in a batch, by the number of frames."""
PLAIN, OPENVINO = "PyTorch float32, plain", "OpenVINO bfloat16, plain"
"""The contenders that all others are put in relation to."""
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
Call = Callable[[], torch.Tensor]


def describe_cpu() -> str:
    """Name the processor, its threads in use, and which matrix instructions it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    known = [flag for flag in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni") if flag in flags]
    units = ", ".join(known) + ("" if "amx_bf16" in known else f"{', ' * bool(known)}no AMX")
    return f"{facts.get('model name', platform.processor())}, {torch.get_num_threads()} threads, {units}"


def compile_openvino(model: Any, pixel_values: torch.Tensor, dtype: torch.dtype) -> Call:
    """Compile an OpenVINO model for a batch and give what runs it.

    Args:
        model (`openvino.Model`): With one input and logits as its first output.
        pixel_values (`torch.Tensor` of shape `(B, C, T, H, W)`): What it is called with.
        dtype (`torch.dtype`): Precision that OpenVINO computes in.
    """
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    pixels = pixel_values.float().numpy()
    return lambda: torch.from_numpy(compiled([pixels], share_inputs=True)[0])


def compile_onnx(model: bytes, pixel_values: torch.Tensor) -> Call:
    """Open an ONNX graph in ONNX Runtime and give what runs it.

    Args:
        model (`bytes`): The serialised graph, with one input and logits as its first output.
        pixel_values (`torch.Tensor` of shape `(B, C, T, H, W)`): What it is called with.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: pixel_values.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def convert_plain(pair: Pair, dtypes: list[torch.dtype]) -> Iterator[tuple[str, torch.dtype, Call]]:
    """The plain module as a user would convert it, in the runtimes that are installed.

    Args:
        pair (`Pair`): The models and a batch.
        dtypes (`list[torch.dtype]`): Precisions of OpenVINO.

    Yields:
        `tuple[str, torch.dtype, Call]`: Name, precision and call of a contender.
    """
    program = torch.export.export(pair.plain, (pair.pixel_values,))
    if find_spec("openvino"):
        check_packages("openvino")  # which keeps OpenVINO from reporting its use
        import openvino

        converted = openvino.convert_model(program)
        for dtype in dtypes:
            yield f"OpenVINO {_name(dtype)}, plain", dtype, compile_openvino(converted, pair.pixel_values, dtype)
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        graph = torch.onnx.export(program, dynamo=True, verbose=False)
        proto = graph.model_proto.SerializeToString()  # type: ignore[union-attr]
        yield "ONNX Runtime float32, plain", torch.float32, compile_onnx(proto, pair.pixel_values)


def export_ours(pair: Pair, dtypes: list[torch.dtype]) -> Iterator[tuple[str, torch.dtype, Call]]:
    """Our model as `prithvi-hf export` makes it, in the runtimes that are installed; int8 is calibrated on the batch.

    Args:
        pair (`Pair`): The models and a batch.
        dtypes (`list[torch.dtype]`): Precisions of OpenVINO.

    Yields:
        `tuple[str, torch.dtype, Call]`: Name, precision (of what is not int8) and call of a contender.
    """
    pixels = pair.pixel_values
    if find_spec("openvino"):
        exported = trace_graph(pair.ours)
        for dtype in dtypes:
            own = copy.deepcopy(exported).to(dtype)
            yield f"OpenVINO {_name(dtype)}, ours", dtype, lambda own=own: own(pixels).logits
        if find_spec("nncf"):
            quantizer = make_quantizer("openvino", [{"pixel_values": pixels}])
            quantized = trace_graph(pair.ours, quantizer=quantizer).to(dtypes[-1])
            yield "OpenVINO int8, ours", torch.bfloat16, lambda: quantized(pixels).logits
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        graph = trace_graph(pair.ours, "onnx")
        yield "ONNX Runtime float32, ours", torch.float32, lambda: graph(pixels).logits


def make_contenders(pair: Pair) -> dict[str, tuple[torch.dtype, Call]]:
    """Everything that computes the logits of a batch, by name, with its precision.

    Args:
        pair (`Pair`): Both models in float32, set to evaluation, and a batch.
    """
    pixels, found = pair.pixel_values, {}
    dtypes = [torch.float32, *([torch.bfloat16] if has_bfloat16() else [])]
    for dtype in dtypes:
        plain, ours = (copy.deepcopy(model).to(dtype) for model in (pair.plain, pair.ours))
        plain.proj.float()  # as in `make_pair`
        cast = pixels.to(dtype)
        found[f"PyTorch {_name(dtype)}, plain"] = dtype, lambda plain=plain, cast=cast: plain(cast)
        found[f"PyTorch {_name(dtype)}, ours"] = dtype, lambda ours=ours, cast=cast: ours(cast).logits
    converted = (*convert_plain(pair, dtypes), *export_ours(pair, dtypes))
    return found | {name: (dtype, call) for name, dtype, call in converted}


def measure(frames: int, repeats: int, pair: Pair | None = None) -> list[dict]:
    """Rows of one size: every contender in relation to the plain module and to OpenVINO in bfloat16.

    Args:
        frames (`int`): 1 or 3, as in `benchmarks.model`.
        repeats (`int`): Timed calls of each.
        pair (`Pair`, *optional*): Other models and another batch, for tests.
    """
    pair = pair or make_pair(frames, BATCHES[frames])
    nn.ModuleDict(pair.models()).eval()
    with torch.inference_mode():
        contenders = make_contenders(pair)
        logits = {name: call().float() for name, (_, call) in contenders.items()}
        seconds = median_seconds({name: call for name, (_, call) in contenders.items()}, repeats)
    wanted, rows = logits[PLAIN], []
    for name, (dtype, _) in contenders.items():
        apart = ((logits[name] - wanted).abs().max() / wanted.abs().max()).item()
        rows.append(
            {
                "what": f"{name}, {frames} frame{'s' * (frames > 1)}, batch {len(pair.pixel_values)}",
                "ms": 1000 * seconds[name],
                "ratio_to_plain": seconds[PLAIN] / seconds[name],
                "ratio_to_openvino": seconds[OPENVINO] / seconds[name] if OPENVINO in seconds else None,
                "logits_apart": apart,
                "class_agreement": (logits[name].argmax(1) == wanted.argmax(1)).float().mean().item(),
                "right": apart <= TOLERANCE[dtype],
            }
        )
    return rows


def tabulate(rows: list[dict]) -> str:
    """Make the table in Markdown.

    Args:
        rows (`list[dict]`): Those of `run`.
    """
    lines = [
        f"| one forward pass on {describe_cpu()} | time | speed, {PLAIN} = 1 | speed, {OPENVINO} = 1 "
        "| logits apart | same class |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        second = "-" if row["ratio_to_openvino"] is None else f"{row['ratio_to_openvino']:.2f}x"
        lines.append(
            f"| {row['what']} | {row['ms']:.0f} ms | {row['ratio_to_plain']:.2f}x | {second} "
            f"| {row['logits_apart']:.1e}{'' if row['right'] else ', WRONG'} | {row['class_agreement']:.2%} |"
        )
    return "\n".join(lines)


def run(repeats: int, frames: tuple[int, ...] = tuple(BATCHES)) -> list[dict]:
    """Measure every runtime that is there, and say on standard error which is not.

    Args:
        repeats (`int`): Timed calls of each contender.
        frames (`tuple[int, ...]`, defaults to `(1, 3)`): Frames of the inputs.

    Returns:
        `list[dict]`: The rows of the table.
    """
    missing = [name for name in ("openvino", "onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        print(f"No rows of runtimes that need {', '.join(missing)}: `pip install prithvi_hf[peers]`.", file=sys.stderr)
    return [row for count in frames for row in measure(count, repeats)]


def _name(dtype: torch.dtype) -> str:
    """A type as the tables write it."""
    return str(dtype).removeprefix("torch.")


def main() -> None:
    """Measure, print the table, and write JSON where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="One forward pass per runtime.")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each contender (default 15)")
    parser.add_argument("--frames", type=int, nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = run(options.repeats, tuple(options.frames))
    print(tabulate(rows))
    if options.json:
        options.json.write_text(json.dumps({"cpu": describe_cpu(), "peers": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
