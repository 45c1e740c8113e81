# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page on the architecture against the code: every module is on it, and imports go the way that it says."""

import ast
import re
from importlib import import_module

import pytest

from tests.docs.pages import ROOT


PACKAGE = ROOT / "prithvi_hf"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
# They travel to the Hub, and reach for the rest of the package inside functions, where it is installed.
TRAVELLING = "models/prithvi/"


def read_layers():
    """Module -> the number of its layer, from the headings and tables of the page."""
    layers = {}
    for number, text in re.findall(r"^## Layer (\d)[^\n]*\n(.*?)(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE):
        layers |= {module: int(number) for module in re.findall(r"^\| `([\w/]+\.py)` \|", text, flags=re.MULTILINE)}
    return layers


LAYERS = read_layers()


def layer_of(module):
    """Packages that only have a docstring are not on the page; they are with their modules."""
    folder = module.rpartition("/")[0]
    return LAYERS.get(module) or next(layer for other, layer in LAYERS.items() if other.startswith(folder))


def imports_of(module, inside_functions=False):
    """Modules of the package that one imports when it is loaded, or anywhere; those for type checkers do not count."""
    tree = ast.parse(MODULES[module].read_text())
    nodes, found = list(tree.body), set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            found |= {name for alias in node.names for name in [find_module(alias.name)] if name}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["prithvi_hf", *module.removesuffix(".py").split("/")][: -node.level]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in node.names:
                found |= {name for name in [find_module(f"{base}.{alias.name}") or find_module(base)] if name}
        nodes += ast.iter_child_nodes(node)
    return found - {module}


def find_module(name):
    """The file of `prithvi_hf.a.b`, relative to the package; None for what is no module of it."""
    if name.split(".")[0] != "prithvi_hf":
        return None
    stem = "/".join(name.split(".")[1:])
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")) if path in MODULES), None)


def test_the_page_lists_every_module_and_no_other():
    with_code = {name for name, path in MODULES.items() if len(ast.parse(path.read_text()).body) > 1}
    assert with_code - LAYERS.keys() == set(), "modules without a line"
    assert LAYERS.keys() - MODULES.keys() == set(), "lines without a module"


def find_upward(modules, **options):
    """Module -> what it imports from layers above its own."""
    found = {
        module: {other for other in imports_of(module, **options) if layer_of(other) > layer_of(module)}
        for module in modules
    }
    return {module: above for module, above in found.items() if above}


def test_modules_import_nothing_from_a_layer_above():
    assert find_upward(MODULES) == {}
    stay = [module for module in MODULES if not module.startswith(TRAVELLING)]
    assert find_upward(stay, inside_functions=True) == {}


def test_what_travels_imports_its_neighbours_by_flat_names():
    for module in (module for module in MODULES if module.startswith(TRAVELLING)):
        for node in ast.parse(MODULES[module].read_text()).body:
            if isinstance(node, ast.ImportFrom):
                flat = node.level == 1 and "." not in node.module and node.module.endswith("_prithvi")
                assert flat or (node.level == 0 and find_module(node.module) is None), f"{module}: {ast.unparse(node)}"


def test_no_modules_import_each_other_in_a_circle():
    waiting = {module: imports_of(module) for module in MODULES}
    while waiting:
        free = {module for module, imports in waiting.items() if not imports & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {module: imports for module, imports in waiting.items() if module not in free}


@pytest.mark.parametrize(
    ("package", "pages"),
    [
        ("prithvi_hf", ("models", "scenes", "data", "training")),
        ("prithvi_hf.data", ("data",)),
        ("prithvi_hf.scenes", ("scenes",)),
        ("prithvi_hf.plotting", ("plotting",)),
    ],
)
def test_every_public_name_is_in_the_reference(package, pages):
    text = "".join((ROOT / "docs" / "reference" / f"{page}.md").read_text() for page in pages)
    listed = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", text, flags=re.MULTILINE)}
    assert set(import_module(package).__all__) - listed == set()
