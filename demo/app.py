# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The demo as a Space of the Hub, or `python app.py`: what `prithvi-hf demo` shows, with options from the environment.

MODEL_ID is the model, a Hub id or a folder. TITLE, DEVICE, DTYPE, MAX_MEGABYTES, MAX_MEGAPIXELS, MAX_SECONDS,
COLLECTION (names with spaces between), STAC, SIGN and MAX_CLOUD are as the options of the command, EXAMPLES a folder
of scenes (default: the folder `examples` beside this file). Address and port are those that gradio takes,
GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, which a Space sets.
"""

import os
import sys
from pathlib import Path

from prithvi_hf.demo.app import DemoOptions, run_demo
from prithvi_hf.demo.jobs import Limits
from prithvi_hf.demo.places import Catalog


def read_environment() -> DemoOptions:
    """Read the options.

    Raises:
        ValueError: MODEL_ID is not set, or a limit is not a number above 0.
    """
    model = os.environ.get("MODEL_ID")
    if not model:
        raise ValueError(
            "Expected the variable MODEL_ID, a Hub id or a folder of a fine-tuned model, found none. Set it, in a "
            "Space under Settings, Variables."
        )
    names = ("MAX_MEGABYTES", "MAX_MEGAPIXELS", "MAX_SECONDS")
    limits = Limits(**{name.lower(): float(os.environ[name]) for name in names if os.environ.get(name)})
    examples = Path(os.environ.get("EXAMPLES") or Path(__file__).resolve().parent / "examples")
    catalog, cloud = None, os.environ.get("MAX_CLOUD")
    if collections := os.environ.get("COLLECTION", "").split():
        addresses = os.environ.get("STAC") or None, os.environ.get("SIGN") or None
        catalog = Catalog(tuple(collections), *addresses, float(cloud) if cloud else None)
    return DemoOptions(
        model,
        examples=examples if examples.is_dir() or os.environ.get("EXAMPLES") else None,
        title=os.environ.get("TITLE"),
        device=os.environ.get("DEVICE") or "auto",
        dtype=os.environ.get("DTYPE") or "float32",
        limits=limits,
        catalog=catalog,
    )


if __name__ == "__main__":
    try:
        run_demo(read_environment())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"app.py: error: {error}")
