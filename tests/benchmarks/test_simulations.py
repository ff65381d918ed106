"""The simulations of experiments need numpy, which this environment lacks: here their imports of the package alone."""

import ast
import importlib

import pytest

from tests.support.processes import REPOSITORY

MODULES = sorted((REPOSITORY / "benchmarks" / "experiments").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_a_simulation_imports_of_the_package_is_there(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [(node.module, alias.name) for node in imports if node.module.startswith("dspyq.") for alias in node.names]
    assert not [(module, name) for module, name in names if not hasattr(importlib.import_module(module), name)]
