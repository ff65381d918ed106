"""The structure of the code: one line of dependency, DSPy in few places, Lua in files of its own."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Each package may import those before it and itself.
LINE = ["dspyq"]
IMPORTS_DSPY = {
    "dspyq/programs/runner.py",
    "dspyq/programs/engine.py",
    "dspyq/programs/prices.py",
    "dspyq/programs/failures.py",
    "dspyq/programs/dspy_memo.py",
    "dspyq/stack/embedded/short_prompt.py",
}


def modules():
    return [path for package in LINE for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    """The top-level packages a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = LINE[: LINE.index(package) + 1]
    ours = {name for name in imported(path) if name in LINE}
    assert ours <= set(allowed)


def test_dspy_is_imported_in_few_places():
    found = {str(path.relative_to(ROOT)) for path in modules() if "dspy" in set(imported(path))}
    assert found <= IMPORTS_DSPY


def test_guards_know_nothing_of_each_other():
    guards = {"breaker": {"breaker", "breaker_state"}, "rate_limit": {"rate_limit"}, "budget": {"budget"}}
    for name, modules_of_it in guards.items():
        others = set().union(*(modules for other, modules in guards.items() if other != name))
        for module in modules_of_it:
            text = (ROOT / "dspyq" / "guards" / f"{module}.py").read_text()
            assert not [other for other in others if f"dspyq.guards.{other} import" in text], module


def test_opentelemetry_is_imported_in_one_place():
    found = [path for path in modules() if "opentelemetry" in set(imported(path))]
    assert [str(path.relative_to(ROOT)) for path in found] == ["dspyq/tracing/spans.py"]


def test_litellm_is_imported_nowhere():
    assert not [path for path in modules() if "litellm" in set(imported(path))]


def test_lua_lives_in_files_that_open_with_what_they_take():
    scripts = sorted(path for package in LINE for path in (ROOT / package).rglob("*.lua"))
    assert scripts
    for script in scripts:
        lines = script.read_text().splitlines()
        opening = lines[1] if lines[0].startswith("#!lua") else lines[0]
        assert opening.startswith("--"), script
    assert not [path for path in modules() if "redis.call(" in path.read_text()]


def test_importing_a_producer_reads_no_configuration_and_loads_no_dspy():
    code = (
        "import sys, dspyq, dspyq.config.settings;"
        "unwanted = {'dspy', 'litellm', 'flower', 'tornado', 'numpy', 'prometheus_client', 'structlog'};"
        "assert not (unwanted | {'dspyq.tracing.spans'}) & sys.modules.keys();"
        "assert dspyq.config.settings.get_settings.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"DSPYQ_CONFIG": "/nowhere.toml"}, cwd=ROOT)


def test_no_module_outgrows_one_job():
    for path in modules():
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_version_of_dspy_in_fingerprints_is_the_pinned_one():
    from dspyq.config.models import DSPY_VERSION

    assert f'"dspy=={DSPY_VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_versions_are_pinned_and_no_file_names_an_index():
    constraints = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"https?://|--index|--extra-index|--find-links", constraints)
    assert not re.search(
        r'"[A-Za-z][\w.\[\]-]*(>=|~=|<)[\d.]', (ROOT / "pyproject.toml").read_text().split("[project]")[1]
    )
