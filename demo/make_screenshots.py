# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Take the pictures of `docs/demo.md` in Chromium, of a demo with a model and examples of your choice.

python demo/make_screenshots.py --model OUT --examples scenes/ --example 0 --output_dir docs
"""

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from prithvi_hf.demo.app import DemoOptions, serve_demo


WAIT = 120_000  # milliseconds
COLORS = 256  # of a picture, which keeps it small


def main(arguments: list[str] | None = None) -> int:
    """Take the pictures `demo.png` and `demo_phone.png`."""
    parser = argparse.ArgumentParser(description="Take pictures of the demo.")
    parser.add_argument("--model", required=True, help="folder or Hub id of a fine-tuned model of one date")
    parser.add_argument("--examples", required=True, help="folder of scenes")
    parser.add_argument("--example", type=int, default=0, help="which of them is mapped, counted from 0")
    parser.add_argument("--title", default="Flood maps", help="heading of the page")
    parser.add_argument("--output_dir", type=Path, default=Path("docs"), help="folder of the pictures")
    options = parser.parse_args(arguments)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        parser.error("expected Chromium on the path, found none: `make test-browser` installs it.")
    shown = DemoOptions(options.model, options.examples, options.title, "127.0.0.1")
    with serve_demo(shown) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        desk = browser.new_page(viewport={"width": 1180, "height": 900})
        map_example(desk, address, options.example)
        save(desk, options.output_dir / "demo.png")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
        map_example(phone, f"{address}?__theme=dark", options.example)
        phone.get_by_role("radio", name="Confidence").check()
        phone.get_by_label("Border between").fill("30")
        phone.locator(".pd-bar").evaluate(
            "(one) => window.scrollTo(0, one.getBoundingClientRect().top + scrollY - 12)"
        )
        save(phone, options.output_dir / "demo_phone.png", full_page=False)
        browser.close()
    return 0


def map_example(page: Any, address: str, example: int) -> None:
    """Choose an example, map it and wait for all that is shown of it."""
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.locator("#examples button").nth(example).click()
    page.locator(".pd-viewer img").wait_for()
    page.locator("#start:enabled").click()
    page.locator(".pd-swipe").wait_for()
    page.locator("#downloads a").first.wait_for()
    page.locator("#start").wait_for()


def save(page: Any, path: Path, full_page: bool = True) -> None:
    """Save what the page shows as a small PNG."""
    page.wait_for_timeout(500)  # transitions end
    picture = Image.open(io.BytesIO(page.screenshot(full_page=full_page))).convert("RGB")
    picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
