# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page of examples; tests/serving/test_app.py asks a server for it."""

from prithvi_hf.serving.api_page import make_page


def test_what_a_description_holds_is_text_on_the_page():
    operation = {"description": "Draws <script>", "responses": {"200": {}, "404": {}}}
    described = {
        "info": {"title": "Maps", "version": "1"},
        "paths": {"/v1/x": {"get": operation, "parameters": []}},
        "components": {
            "schemas": {"JobOptions": {"properties": {"tta": {"enum": ["none", "d4"], "default": "none"}}}}
        },
    }
    page = make_page(described, "http://127.0.0.1:1", True)
    assert "Draws &lt;script&gt;" in page
    assert "Bearer $TOKEN" in page
    assert "One of none, d4." in page
    assert "200, 404" in page
    assert "Bearer" not in make_page(described, "http://127.0.0.1:1", False)
