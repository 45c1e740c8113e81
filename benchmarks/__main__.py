# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Run all benchmarks: `python -m benchmarks [--repeats 15] [--json results.json] [--data_dir sen1floods11]`."""

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from benchmarks import evaluating, loading, reading


def main() -> None:
    """Measure, print a table, and write JSON where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Medians and ratios of one run.")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each contender (default 15)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--data_dir", type=Path, help="real Sen1Floods11 chips for the loader; generated ones without")
    options = parser.parse_args()
    results = [benchmark.run(options.repeats) for benchmark in (reading, evaluating)]
    results += loading.run(options.repeats, options.data_dir)
    print("| what | ours (ms) | alternative (ms) | ratio | alternative is |\n|---|---|---|---|---|")
    for row in results:
        print(
            f"| {row['what']} | {row['ours_ms']:.2f} | {row['alternative_ms']:.2f} | {row['ratio']:.1f}x "
            f"| {row['alternative']} |"
        )
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
