# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Run all benchmarks: `python -m benchmarks [--repeats 15] [--quick] [--json FILE] [--data_dir sen1floods11]`."""

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from benchmarks import (
    busy_machine,
    decoders,
    evaluating,
    finetuning,
    gpu,
    loading,
    model,
    peers,
    reading,
    scenes,
    steps,
    terratorch_peer,
)


def main() -> None:
    """Measure, print a table, and write JSON where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Medians and ratios of one run.")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each contender (default 15)")
    parser.add_argument("--quick", action="store_true", help="three repeats, and the model's main figures alone")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--data_dir", type=Path, help="real Sen1Floods11 chips for the loader; generated ones without")
    options = parser.parse_args()
    repeats = min(options.repeats, 3) if options.quick else options.repeats
    results = [benchmark.run(repeats) for benchmark in (reading, evaluating, scenes, busy_machine)]
    results += scenes.run_against_gdal(repeats, options.quick)
    results += loading.run(repeats, options.data_dir)
    results += model.run(repeats, options.quick)
    results += [] if options.quick else [*steps.run(repeats), *decoders.run(max(1, repeats // 3))]
    results += finetuning.run(repeats, options.data_dir)
    results += gpu.run(repeats)
    results += terratorch_peer.run(repeats, options.quick)
    print("| what | ours | alternative | ratio | alternative is |\n|---|---|---|---|---|")
    for row in results:
        unit = "MB" if "ours_mb" in row else "ms"
        ours, alternative = (row[f"{name}_{unit.lower()}"] for name in ("ours", "alternative"))
        print(
            f"| {row['what']} | {ours:.2f} {unit} | {alternative:.2f} {unit} | {row['ratio']:.2f}x "
            f"| {row['alternative']} |"
        )
    runtimes = peers.run(repeats, (1,) if options.quick else tuple(peers.BATCHES))
    print(f"\n{peers.tabulate(runtimes)}")
    if torch.cuda.is_available():
        print(f"\n{gpu.make_page(repeats, torch.device('cuda'))}")
    machine = {
        "cores": os.cpu_count(),
        "cpu": peers.describe_cpu(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "results": results, "peers": runtimes}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
