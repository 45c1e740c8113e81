# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Write synthetic flood scenes as examples for a demo of a flood model: `python demo/make_examples.py FOLDER`."""

import argparse
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
SEEDS = {"plain": 7, "river": 16, "haze": 2}
SIZE = (512, 640)


def main(arguments: list[str] | None = None) -> int:
    """Write the scenes."""
    parser = argparse.ArgumentParser(description="Write synthetic flood scenes as examples for a demo.")
    parser.add_argument("folder", type=Path, help="folder to write to; files of the same names are replaced")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar="PIXELS", help="height and width")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "examples"))
    from synthetic_floods import generate_scene

    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, seed in SEEDS.items():
            generate_scene(*options.size, seed).write(options.folder / f"{name}.tif", Path(scratch) / "mask.tif")
            print(options.folder / f"{name}.tif")
    return 0


if __name__ == "__main__":
    sys.exit(main())
