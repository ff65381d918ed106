"""``dspyq init``: a new project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from dspyq.console.output import print_text
from dspyq.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SUFFIX = ".tmpl"
_HIDDEN = "dot-"


class Template(StrEnum):
    """The base of a project."""

    plain = "plain"
    fastapi = "fastapi"
    django = "django"


#: Values of the common files, by template.
_PARTS = {
    Template.plain: {"dependencies": "", "dev": "", "imports": "", "web": "", "modules": '"producer", "programs"'},
    Template.fastapi: {
        "dependencies": ', "fastapi", "uvicorn"',
        "dev": ', "httpx"',
        "imports": ", fastapi, httpx, uvicorn",
        "web": "uvicorn web:api",
        "modules": '"producer", "programs", "web"',
    },
    Template.django: {
        "dependencies": ', "django>=5.2", "uvicorn"',
        "dev": "",
        "imports": ", django, uvicorn",
        "web": "uvicorn config.asgi:application",
        "modules": '"producer", "programs"',
    },
}
_COMPOSE_WEB = """
  web:
    <<: *app
    command: [{command}, --host, 0.0.0.0, --port, "8000"]
    environment:
      HOME: /tmp
      DSPYQ_REDIS_URL: redis://producer:${{REDIS_PRODUCER_PASSWORD:?set it in .env}}@redis:6379/0
    ports: ["127.0.0.1:8000:8000"]
"""
_PACKAGES = {Template.django: '"config", "tickets"'}


def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="The new project's folder, which must be empty.")],
    template: Annotated[Template, typer.Option(help="The base of the project.")] = Template.plain,
) -> None:
    """Write a new project: configuration, program, producer, tests without Redis, Makefile, compose.yaml and users.acl.

    Example: `dspyq init shop --template fastapi`
    """
    from dspyq.config.settings import load_settings
    from dspyq.store.users import file_of, users_of

    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot name a project: use letters, digits, - and _, with a letter first")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty; name a new folder")
    values = _values(name, template)
    try:
        for path, text in _texts(template):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_filled(text, values), encoding="utf-8")
        users = file_of(users_of(load_settings(folder / "dspyq.toml")))
        (folder / "users.acl").write_text(users, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from None
    print_text(f"Wrote {folder}. Next: cd {folder} && make demo && make test")


def _values(name: str, template: Template) -> dict[str, str]:
    parts = _PARTS[template]
    served = parts["web"]
    return parts | {
        "name": name,
        "compose_name": re.sub(r"[^a-z0-9_-]", "-", name.lower()),
        "source": _source(),
        "packages": _PACKAGES.get(template, ""),
        "web": f"web: {served} --port ${{PORT:-8000}}\n" if served else "",
        "compose_web": _COMPOSE_WEB.format(command=served.replace(" ", ", ")) if served else "",
    }


def _texts(template: Template) -> Iterator[tuple[str, str]]:
    """Return each file of a template, by its path in the project."""
    root = files("dspyq.cli") / "templates"
    for part in ("common", template.value):
        if (root / part).is_dir():
            yield from _texts_in(root / part, "")


def _texts_in(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _texts_in(each, f"{prefix}{each.name}/")
        elif each.name.endswith(_SUFFIX):
            name = each.name.removesuffix(_SUFFIX)
            hidden = f".{name.removeprefix(_HIDDEN)}" if name.startswith(_HIDDEN) else name
            yield prefix + hidden, each.read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def _source() -> str:
    """Return the URL of the checkout or wheel from which dspyq was installed; empty for a package index."""
    stated = distribution("dspyq").read_text("direct_url.json")
    url: str = json.loads(stated)["url"] if stated else ""
    return url if url.startswith("file:") else ""
