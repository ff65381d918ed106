"""Plain English in code, messages, docs and names of tests: no opening question word, no machine that speaks.

``python -m tests.test_english`` prints each offence.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: A docstring is an imperative or a noun phrase.
QUESTION = re.compile(r"(?:What|Whether|Who|Whom|Whose|Where|How|Which)\b(?!.*\?$)")
#: Verbs of people. Write what happens: returns, logs, raises, shows, contains.
SPEECH = re.compile(
    r"\b(?:tells|knows|hears|says|wants|asks)\b|\b(?:is|are|be|been|was|were|gets) (?:told|heard|said)\b|\bunheard\b",
    re.IGNORECASE,
)
#: The same, and people that stand for a caller, a process or a client: in code the reader needs to know which.
IN_CODE = re.compile(rf"{SPEECH.pattern}|\b(?:told|whoever|whom|nobody|somebody|everybody|anybody)\b", re.IGNORECASE)
#: The same in names of tests.
IN_NAMES = re.compile(r"_(?:says|told|tells|knows|hears|heard|whoever|nobody|somebody|everybody|anybody)(?=_|$)")
_CODE = re.compile(r"```.*?```|`[^`]*`|<!--.*?-->", re.DOTALL)


def offences() -> Iterator[str]:
    """Yield the place of each offence, with the offending words."""
    yield from _in_code()
    yield from _in_tests()
    for path in (*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *_pages()):
        prose = _CODE.sub(lambda code: "\n" * code.group().count("\n"), path.read_text(encoding="utf-8"))
        yield from _found(path, 1, prose, SPEECH)


def _in_code() -> Iterator[str]:
    for path in sorted((ROOT / "dspyq").rglob("*.py")):
        yield from _openings(path)
        for line, text, _ in _texts(path):
            yield from _found(path, line, text, IN_CODE)
    for path in sorted((ROOT / "dspyq").rglob("*.lua")):
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield from _found(path, line, text.partition("--")[2], IN_CODE)


def _in_tests() -> Iterator[str]:
    for folder in ("tests", "benchmarks", "deploy"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _openings(path)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield from _found(path, node.lineno, node.name, IN_NAMES)


def _openings(path: Path) -> Iterator[str]:
    for line, text, is_docstring in _texts(path):
        if is_docstring and QUESTION.match(text):
            yield f"{path.relative_to(ROOT)}:{line}: opens with {text.split()[0]!r}"


def _pages() -> Iterator[Path]:
    yield from sorted((ROOT / "docs").glob("*.md"))


def _found(path: Path, line: int, text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for found in pattern.finditer(text):
        yield f"{path.relative_to(ROOT)}:{line + text.count(chr(10), 0, found.start())}: {found.group()!r}"


def _texts(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield docstrings, comments and messages of a module, each with its line, and True for a docstring."""
    source = path.read_text(encoding="utf-8")
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                docstrings.add(node.body[0].lineno)
                yield node.body[0].lineno, text, True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_message = token.type == tokenize.STRING and " " in token.string and token.start[0] not in docstrings
        if token.type == tokenize.COMMENT or is_message:
            yield token.start[0], token.string, False


def test_docstrings_comments_messages_and_docs_are_plain_english() -> None:
    assert not list(offences())


if __name__ == "__main__":
    sys.stdout.write("".join(f"{place}\n" for place in offences()))
