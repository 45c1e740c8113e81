# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page `/docs`: every address of the server with examples, made of its OpenAPI description.

It is plain HTML, so that it needs no script and nothing from another server.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment


_METHODS = ("get", "post", "delete")


def make_page(openapi: Mapping[str, Any], base: str, has_token: bool) -> str:
    """Make the page.

    Args:
        openapi: The description of the application.
        base: The beginning of its addresses.
        has_token: Whether clients have to show a token.

    Returns:
        HTML.
    """
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "text": operation.get("description") or operation.get("summary", ""),
            "statuses": [status for status in operation.get("responses", {}) if status != "422" or method == "post"],
        }
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    ]
    options = [
        {
            "name": name,
            "text": schema.get("description", ""),
            "default": schema.get("default"),
            "choices": schema.get("enum", []),
        }
        for name, schema in openapi["components"]["schemas"]["JobOptions"]["properties"].items()
    ]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("prithvi_hf.serving").joinpath("api_page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(openapi=openapi, base=base, has_token=has_token, operations=operations, options=options)
