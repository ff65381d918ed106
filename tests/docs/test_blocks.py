"""Fenced blocks of the README and the docs: configurations load, Python compiles or runs, commands exist."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from typing import Any

import click
import pytest
import typer

from dspyq.config.settings import Settings, load_settings
from dspyq.testing import answers
from tests.docs.blocks import Block, blocks
from tests.support.configuration import merged, write_settings

ALL = list(blocks())
#: Beneath a block that shows a part of a configuration.
BASE: dict[str, Any] = {
    "models": {name: {"model": "openai/gpt-4o-mini"} for name in ("fast", "strong", "cheap")},
    "programs": {"qa": {"signature": "question -> answer", "variants": {"control": {"model": "fast"}}}},
}
_EXPERIMENT = BASE["programs"]["qa"] | {
    "variants": {"control": {"model": "fast", "weight": 0.9}, "challenger": {"model": "strong", "weight": 0.1}}
}
BASH = shutil.which("bash") or "/bin/bash"
SHELLS = {"bash", "sh", "shell", "console"}


def of(*languages: str, directive: str | None = None) -> list[Any]:
    found = [each for each in ALL if each.language in languages and each.directive != "skip"]
    chosen = [each for each in found if directive is None or each.directive == directive]
    return [pytest.param(each, id=each.name) for each in chosen]


def test_every_block_names_its_language_and_every_exemption_its_reason() -> None:
    assert ALL
    assert not [each.name for each in ALL if not each.language and "─" not in each.text and "│" not in each.text]
    assert not [each.name for each in ALL if each.directive not in {"", "run", "skip"}]
    assert not [each.name for each in ALL if each.directive == "skip" and not each.reason]


@pytest.mark.parametrize("block", of("toml"))
def test_a_configuration_loads(block: Block, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("DSPYQ_CONFIG", raising=False)
    document = tomllib.loads(block.text)
    for each in _before(block, document):
        document = merged(tomllib.loads(each.text), document)
    if not document.keys() & {field.alias or name for name, field in Settings.model_fields.items()}:
        return  # another tool's
    base = {"models": BASE["models"], "programs": {}} if _states_programs(document) else BASE
    document = merged(base, document)
    for program in document["programs"].values():
        variants = program.setdefault("variants", {"control": {"model": "fast"}})
        for variant in variants.values():
            variant.setdefault("model", "fast")
            variant.setdefault("weight", 1 / len(variants))
        for table in (program, *variants.values()):
            if table.get("state"):
                (tmp_path / table["state"]).write_text("{}")
    load_settings(write_settings(tmp_path / "dspyq.toml", document))


def _before(block: Block, document: dict[str, Any]) -> list[Block]:
    """The blocks that one adds to, the latest first: those of its file, or the one that states its program."""
    earlier = [each for each in reversed(ALL) if each.page == block.page and each.line < block.line]
    if block.file:
        return [each for each in earlier if each.file == block.file]
    for name, program in document.get("programs", {}).items():
        if not program.keys() & {"signature", "class"} and name not in BASE["programs"]:
            stated = re.compile(rf"^\[programs\.{name}\]$", re.MULTILINE)
            return [each for each in earlier if each.language == "toml" and stated.search(each.text)][:1]
    return []


def _states_programs(document: dict[str, Any]) -> bool:
    return any("signature" in program for program in document.get("programs", {}).values())


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles_and_what_it_imports_from_dspyq_exists(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    tree = compile(block.text, block.name, "exec", flags)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"dspyq", "producer", "workers"}:
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not _has(module, alias.name)]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dspyq":
                    importlib.import_module(alias.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "predict":
            # The class: looking at the task would configure the application before other tests do.
            from dspyq.client.predict import Predict

            assert hasattr(Predict, node.attr), node.attr


def _has(module: Any, name: str) -> bool:
    if hasattr(module, name):
        return True
    try:
        importlib.import_module(f"{module.__name__}.{name}")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("block", of("python", directive="run"))
def test_python_runs(block: Block, predict: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("US_REDIS_URL", "redis://us.example:6379/0")
    for name in ("eu", "us"):  # as the reader has them
        write_settings(tmp_path / f"{name}.toml", BASE)
    # Configured as for every test of this process, before a block has a configuration of its own.
    assert predict.app.conf.broker_url
    code = compile(block.text, block.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    rows = [{"question": "What is a lease?"}, {"question": "What is a fence?"}]
    with answers({"answer": "42"}, configuration=BASE | {"programs": {"qa": _EXPERIMENT}}):
        from celery import group

        names = {"predict": predict, "group": group, "asyncio": asyncio, "rows": rows, "questions": ["What is a bell?"]}
        awaited = eval(code, names)  # noqa: S307 - it is our own page
        if inspect.iscoroutine(awaited):
            asyncio.run(awaited)


@pytest.mark.parametrize("block", of(*SHELLS))
def test_shell_parses_and_its_commands_exist(block: Block) -> None:
    checked = subprocess.run([BASH, "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    for line in block.text.replace("\\\n", " ").splitlines():
        for words in _commands(line):
            _check(words)


def _commands(line: str) -> list[list[str]]:
    """The simple commands of a line, without the variables set before them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set(";&|()"):
            found.append([])
        elif set(word) <= set("<>"):
            found[-1].append("<>")
        else:
            found[-1].append(word)
    without = [words[: words.index("<>")] if "<>" in words else words for words in found]
    return [_without_assignments(words) for words in without if words]


def _without_assignments(words: list[str]) -> list[str]:
    while words and "=" in words[0].split("/")[0] and words[0].split("=")[0].isidentifier():
        words = words[1:]
    return words


def _check(words: list[str]) -> None:
    if words[:1] == ["dspyq"]:
        _parse(_own_command(), "dspyq", words[1:])
    elif words[:2] == ["celery", "-A"]:
        from celery.bin.celery import celery

        assert words[2] in {"dspyq", "workers"} or not words[2].startswith("dspyq"), words
        _parse(celery, "celery", words[3:])


@functools.cache
def _own_command() -> Any:
    """The command line of dspyq; once, for that builds every command."""
    from dspyq.cli.main import app

    return typer.main.get_command(app)


def _parse(command: Any, name: str, arguments: list[str]) -> None:
    """Parse a command line as its command does, without running it."""
    context = click.Context(command, info_name=name, resilient_parsing=True)
    found, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
    subcommands = getattr(command, "commands", None)
    if subcommands:
        rest = rest or ["--help"]
        if rest[0].startswith("-"):
            return
        for each in rest[0].split("|"):
            assert each in subcommands, f"{name} has no command {each}"
            _parse(subcommands[each], f"{name} {each}", rest[1:])
        return
    allows_extra = command.allow_extra_args or command.context_settings.get("allow_extra_args")
    assert allows_extra or not rest, f"{name}: unexpected {rest}"
    assert not [
        each.name
        for each in command.params
        if each.param_type_name == "argument" and each.required and found.get(each.name) in (None, (), [])
    ], f"{name}: an argument is missing"
