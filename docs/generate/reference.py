"""Generate the reference pages from the code: settings, command line, Python API and errors.

mkdocs runs this file through its plugin ``gen-files``; ``make docs`` builds the site.
"""

from __future__ import annotations

import html
import importlib.util
import inspect
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import mkdocs_gen_files
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dspyq import errors
from dspyq.cli.main import app
from dspyq.config.models import Model
from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.config.variants import Variant

#: Filled in from the tables around them, never written in the file.
DERIVED = {
    (Model, "name"),
    *((Program, name) for name in ("name", "state_sha256")),
    *((Variant, name) for name in ("name", "queue", "state_sha256")),
}
#: Names of ``[models]`` tables in the file, the tables themselves in the settings: their type and default in the file.
LINKED = {(Variant, "model"): ("str", "required"), (Program, "models"): ("dict[str, str]", "empty")}

#: Modules of the Python API, each under its heading.
API = {
    "Asking": [
        "dspyq.client.predict.Predict",
        "dspyq.client.awaiting.Awaitable",
        "dspyq.client.result.PredictionResult",
        "dspyq.client.streaming.Streamed",
        "dspyq.streaming.chunks.Chunk",
        "dspyq.client.configured",
    ],
    "Answers": [
        "dspyq.prediction.prediction.Prediction",
        "dspyq.prediction.prediction.Metadata",
        "dspyq.prediction.prediction.Usage",
    ],
    "Errors": ["dspyq.errors.DspyqError"],
    "Experiments": ["dspyq.experiments.status"],
    "Bulk": ["dspyq.client.bulk.Bulk"],
    "Cache administration": ["dspyq.cache.admin"],
    **({"Testing": ["dspyq.testing"]} if importlib.util.find_spec("dspyq.testing") else {}),
}
#: Public in the package, because other modules use them, and of no use to users.
INTERNAL = (
    *("runtime", "run_here"),
    *("app", "backend", "on_ready", "payload", "is_known", "is_sent", "of_request", "with_answer", "receive"),
    *("is_cacheable", "seen_by"),
)


def settings_page() -> str:
    """Return a table for each table of the configuration file."""
    parts = [
        "# All settings",
        "",
        "Every setting of `dspyq.toml`, with its type and default, generated from the settings' definitions.",
        "[Configuration](../configuration.md) explains them, and how to set them in the environment.",
    ]
    for title, model in _tables(Settings, ""):
        parts += ["", f"## {title}", "", *_setting_rows(model)]
    return "\n".join([*parts, ""])


def _tables(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield (f"`[{path}]`" if path else "Top level"), model
    for name, field in model.model_fields.items():
        table, form = _table_of(field.annotation)
        if table is not None and (model, name) not in LINKED:
            yield from _tables(table, form.format(f"{path}.{field.alias or name}".strip(".")))


def _table_of(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the table a field holds, and the form of its heading: a table for each name, or one of a list."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _table_of(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        found = [_table_of(each) for each in get_args(annotation)]
        return next((each for each in found if each[0]), (None, "{}"))
    if origin is dict:
        return _table_of(get_args(annotation)[1])[0], "{}.<name>"
    if origin is tuple:
        return _table_of(get_args(annotation)[0])[0], "[{}]"
    is_table = inspect.isclass(annotation) and issubclass(annotation, BaseModel)
    return (annotation if is_table else None), "{}"


def _setting_rows(model: type[BaseModel]) -> Iterator[str]:
    descriptions = _attribute_docs(model)
    yield "| setting | type | default | |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if (model, name) in DERIVED:
            continue
        if (model, name) in LINKED:
            type_text, default = LINKED[model, name]
            yield f"| `{name}` | {_code(type_text)} | {default} | {descriptions.get(name, '')} |"
        elif _table_of(field.annotation)[0] is None:
            text = (field.description or descriptions.get(name, "")).replace("|", "\\|")
            yield f"| `{field.alias or name}` | {_type_text(field.annotation)} | {_default_text(field)} | {text} |"


def _type_text(annotation: Any) -> str:
    text = annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)
    for noise in ("typing.", "pathlib.", "datetime.", "collections.abc."):
        text = text.replace(noise, "")
    if get_origin(annotation) is Annotated or "Annotated[" in text:
        inner = [_type_text(each) for each in get_args(annotation)][:1] or [text]
        text = html.unescape(inner[0].removeprefix("<code>").removesuffix("</code>"))
    return _code(text)


def _code(text: str) -> str:
    """Return code that may stand in a table: Markdown keeps the backslash of an escaped bar within backquotes."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "empty"
    return "none" if field.default is None else _code(repr(field.default))


def _attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """Read the ``Attributes`` sections of the Google-style docstrings of a class and its bases."""
    bases = [base for base in model.__bases__ if issubclass(base, BaseModel) and base is not BaseModel]
    docs = {name: text for base in bases for name, text in _attribute_docs(base).items()}
    lines = inspect.cleandoc(model.__doc__ or "")
    name = ""
    for line in lines.partition("Attributes:")[2].splitlines():
        stripped = line.strip()
        if not stripped:
            continue
        is_new = line.startswith("    ") and not line.startswith("     ") and ": " in stripped
        if is_new:
            name, _, text = stripped.partition(": ")
            docs[name] = text
        elif name:
            docs[name] += f" {stripped}"
    return docs


def cli_page() -> str:
    """Return the help of every command."""
    command = typer.main.get_command(app)
    parts = [
        "# Command line",
        "",
        "Every command of `dspyq`, with its options, generated from the commands' help.",
        "`dspyq COMMAND --help` shows the same.",
        "A command reads `dspyq.toml` in the working directory, or the file that `DSPYQ_CONFIG` names.",
    ]
    for path, each in _commands(command, "dspyq"):
        parts += ["", f"## `{path}`", "", _clean(each.help or "")]
        rows = list(_parameter_rows(each))
        if rows:
            parts += ["", "| argument or option | default | |", "|---|---|---|", *rows]
    return "\n".join([*parts, ""])


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if path != "dspyq":
        yield path, command
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if not each.hidden:
            yield from _commands(each, f"{path} {name}")


def _parameter_rows(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.name in {"help", "install_completion", "show_completion"} or getattr(each, "hidden", False):
            continue
        is_option = each.param_type_name == "option"
        names = ", ".join(f"`{name}`" for name in ([*each.opts, *each.secondary_opts] if is_option else [each.name]))
        default = each.default if not callable(each.default) else ""
        shown = f"`{default}`" if default not in (None, "", False, True) and repr(default) != "Sentinel.UNSET" else ""
        text = _clean(getattr(each, "help", "") or "").replace("|", "\\|").replace("\n", " ")
        yield f"| {names} | {shown} | {text} |"


def _clean(text: str) -> str:
    return inspect.cleandoc(text.replace("\b", "").replace("\f", ""))


def api_page() -> str:
    """Return mkdocstrings' directives for the public classes and functions."""
    parts = [
        "# Python API",
        "",
        "Generated from docstrings. [Ask for predictions](../producers.md) shows these in use.",
        "`predict` is an instance of `Predict`. Methods return a `PredictionResult`, its `get` a `Prediction`.",
        "",
        "```python",
        "from dspyq import predict, Prediction, Metadata, Usage, configured",
        "```",
    ]
    for heading, names in API.items():
        parts += ["", f"## {heading}"]
        for name in names:
            parts += ["", f"::: {name}", "    options:", f"      filters: ['!^_', '!^({'|'.join(INTERNAL)})$']"]
    return "\n".join([*parts, ""])


def errors_page() -> str:
    """Return a table of every error, with its base and whether a retry can help."""
    parts = [
        "# Errors",
        "",
        "Each error that dspyq raises, in your process or as the failure of a job. Import them from `dspyq.errors`.",
        "All derive from `DspyqError` and have `retryable`: true if the same request can succeed later.",
        "The column *is a* names the class above, so that `except Unavailable` also catches `BudgetExceeded`.",
        "",
        "| error | meaning | is a | a retry can help |",
        "|---|---|---|---|",
    ]
    for name, each in vars(errors).items():
        if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__ == errors.__name__:
            base = each.__mro__[1].__name__
            text = (inspect.getdoc(each) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            can_help = "yes" if getattr(each, "retryable", False) else "no"
            parts.append(f"| `{name}` | {text} | `{base}` | {can_help} |")
    return "\n".join([*parts, ""])


for page, text in {
    "reference/settings.md": settings_page(),
    "reference/cli.md": cli_page(),
    "reference/api.md": api_page(),
    "reference/errors.md": errors_page(),
}.items():
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)
