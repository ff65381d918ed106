"""``make docs``: the site builds without a warning, holds every page, and fetches nothing from elsewhere.

Tests of the built site are ``long``: `make docs` runs them on what it has built (``SITE``), `make chaos` builds it
anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.test_architecture import FLOORS

QUIET = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
#: What a browser loads by itself. A link that a reader may follow is no such thing.
_LOADED = re.compile(
    r"""\bsrc(?:set)?=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//|url\(["']?https?://"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "SITE" in os.environ:
        return ROOT / os.environ["SITE"]
    pytest.importorskip("mkdocs", reason="the site is built where the extra `docs` is installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.long
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    found = [
        (str(path.relative_to(site)), match.group())
        for pattern in ("*.html", "*.css")
        for path in site.rglob(pattern)
        for match in _LOADED.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.long
def test_every_page_of_the_docs_is_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert not [str(page) for page in pages if f'href="{page}"' not in home and page != Path("index.html")]


@pytest.mark.long
def test_the_reference_shows_settings_commands_and_errors(site: Path) -> None:
    for page, expected in {
        "settings": ("visibility_timeout_seconds", "[[programs.&lt;name&gt;.experiment.guards]]"),
        "cli": ("dspyq batch run",),
        "errors": ("BudgetExceeded",),
        "api": ("apply_async", "feedback_async"),
    }.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        assert all(each in text for each in expected), page


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (ROOT / target).exists(), target


def test_the_architecture_page_shows_every_room_on_its_floor() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = {room: int(floor) for floor, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    assert shown == FLOORS
