# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Types of arguments, which docstrings give as transformers does, for the API reference."""

import re
from typing import Any

import griffe


_TYPED = re.compile(r"^( *\*{0,2}\w+) \((\[?`.+?)\): ", flags=re.MULTILINE)  # "name (`int`, *optional*): text"
_MARKS = re.compile(r"\[(?=`)|(?<=`)\]|[`*]")
_DEFAULT = re.compile(r"(, \*optional\*)?(, defaults to .*)?$")


class PlainTypes(griffe.Extension):
    """Take the marks of Markdown out of types, which the reference sets as code, and defaults that signatures show."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object before it is parsed."""
        if obj.docstring is not None:

            def plain(match: re.Match[str]) -> str:
                text = _DEFAULT.sub("", match[2]) if obj.is_function else match[2]
                return f"{match[1]} ({_MARKS.sub('', text)}): "

            obj.docstring.value = _TYPED.sub(plain, obj.docstring.value)
