"""Known secrets of this process and their removal from texts that leave it.

Messages of a provider, a proxy or a library may hold a key, a header or a URL, either as it was sent or in another
notation: percent-encoded, in base64, escaped, broken over lines, or cut short.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: The text shown in place of a secret.
SECRET = "[secret]"  # noqa: S105 - it hides one
#: A shorter secret may be a common word, so texts keep it; in a URL or a header its shape is replaced anyway.
_SHORTEST = 6
_SHORTEST_IN_ANSWERS = 8
#: A text that was cut short must show no more of a secret than this.
_HEAD = 12
#: Placeholders for servers without keys; answers may hold these words.
_PLACEHOLDERS = frozenset({"no-key-required", "not-needed", "not_needed", "lm-studio", "placeholder", "changeme"})
#: Cloud credentials, which DSPy reads from the environment itself.
_CLOUD_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "AZURE_CLIENT_SECRET")
_NAMES_A_SECRET = re.compile(
    r"api[-_]?key|authorization|(access|auth|api|bearer|session)[-_]?token$|secret|passw|credential|cookie"
    r"|^(auth|key|token|code|sig|signature)$",
    re.IGNORECASE,
)
#: The scheme before the secret in a header.
_SCHEME = re.compile(r"^(?:bearer|basic|token)\s+", re.IGNORECASE)
_USER_INFO = re.compile(r"^[^:/]*://(.*)@", re.DOTALL)
_BETWEEN = r"""[\s"'+\\]*"""

#: Formats of providers' keys, and of our own.
_KEY_SHAPES = (
    r"(?:\b(?:sk|rk)-[\w-]{16,}|\bAIza[\w-]{30,}|\b(?:gsk|xai|hf|ghp|gho|glpat|nvapi|pplx)[_-][\w-]{16,}"
    r"|\bdspyq_[0-9A-Za-z]{12}_[0-9A-Za-z]{4,}"
    r"|\bya29\.[\w-]{16,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
#: Texts that look like secrets, known or not, in any case; the text before them stays.
_SHAPES = (
    r"""(\b[a-z][a-z0-9+.-]{0,30}://)(?!:?\*+@)[^\s"'<>]*(?=@)""",
    (
        r"""((?:authorization|cookie|api-key|x-[\w-]{0,40}(?:key|token))\\?["']?\s*[:=]\s*\\?["']?"""
        r"""(?:(?:bearer|basic|token)\s+)?)[^\s"',;<>\\]{4,}"""
    ),
    r"(\b(?:bearer|basic)\s+)[\w.~+/-]{16,}=*",
    r"""([?&](?:[\w.-]*(?:key|token|secret|password|signature)|sig|code)=)[^&\s"'<>]+""",
)
#: A text without any of these matches none of the shapes; a quick check before the patterns.
_SIGNS = (
    "@", "earer", "BEARER", "asic ", "uthorization", "AUTHORIZATION", "ookie", "-key", "Key", "KEY", "key=", "oken=",
    "ecret=", "assword=", "ature=", "sig=", "code=", "sk-", "rk-", "AIza", "eyJ", "gsk", "xai", "hf_", "ghp_", "gho_",
    "glpat", "ya29.", "x-", "nvapi", "pplx", "dspyq_",
)  # fmt: skip


class Secrets:
    """Known secrets in each notation in which they may appear."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._sent: set[str] = set()
        self._is_stale = False
        self._heads: set[str] = set()
        self._everywhere: re.Pattern[str] | None = None
        self._answer_forms: list[str] = []
        self._in_answers: re.Pattern[str] | None = None
        self._answer_starts: frozenset[str] = frozenset()
        self._longest_start = 0
        self._ends_of_starts: frozenset[str] = frozenset()
        self._in_starts: re.Pattern[str] | None = None
        self._reply_forms: list[bytes] = []
        self._in_replies: re.Pattern[bytes] | None = None

    def learn(self, *values: str | None, is_sent: bool = False) -> None:
        """Remove these values from now on; short or empty ones are ignored.

        Args:
            values: The secrets.
            is_sent: Whether the provider sees them, so that answers may hold them.
        """
        new = {value for value in values if value and len(value) >= _SHORTEST}
        if is_sent:
            self._sent |= {value for value in new if len(value) >= _SHORTEST_IN_ANSWERS and value not in _PLACEHOLDERS}
        self._known |= new
        self._is_stale = True

    def learn_url(self, url: str | None, *, is_sent: bool = False) -> None:
        """Remove a URL's password, its user if there is no password, and the secrets of its query."""
        for part in (url or "").split(";"):
            if found := _USER_INFO.match(part):
                user, colon, password = found[1].partition(":")
                secret = password if colon else user
                basic = base64.b64encode(unquote(found[1]).encode()).decode()  # as in a header
                self.learn(secret, unquote(secret), basic, is_sent=is_sent)
        query = (url or "").partition("?")[2].partition("#")[0]
        self.learn(*secrets_in(dict(parse_qsl(query))), is_sent=is_sent)

    def scrub(self, text: str) -> str:
        """Return a text without any secret, known or by its shape, also where it was cut short."""
        self._refresh()
        if self._everywhere is not None:
            text = self._everywhere.sub(SECRET, text)
        return scrub_shapes(text)

    def scrub_line(self, line: str) -> str:
        """Return a line of a log without any secret: as ``scrub``, but cheap where there is none."""
        self._refresh()
        return self.scrub(line) if any(map(line.__contains__, self._heads)) else scrub_shapes(line)

    def scrub_answer(self, value: Any) -> Any:
        """Return a JSON value with secrets replaced that were sent to the provider; all else stays unchanged."""
        self._refresh()
        return self._scrub_value(value) if self._in_answers is not None else value

    def count_begun(self, text: str) -> int:
        """Return how many characters at the end of a text may begin a secret that was sent to the provider."""
        self._refresh()
        if self._in_starts is None or text[-1:] not in self._ends_of_starts:
            return 0
        starts, end = self._answer_starts, len(text)
        for found in self._in_starts.finditer(text, max(end - self._longest_start, 0)):
            if text[found.start() :] in starts:
                return end - found.start()
        return 0

    def is_echoed(self, text: str) -> bool:
        """Return True if a text holds a secret that was sent to the provider."""
        self._refresh()
        return any(map(text.__contains__, self._answer_forms))

    def scrub_reply(self, reply: bytes) -> bytes:
        """Return a provider's reply without the secrets that were sent to it."""
        self._refresh()
        if self._in_replies is None or not any(map(reply.__contains__, self._reply_forms)):
            return reply
        return self._in_replies.sub(SECRET.encode(), reply)

    def _scrub_value(self, value: Any) -> Any:
        if isinstance(value, str):
            if any(map(value.__contains__, self._answer_forms)):
                return self._in_answers.sub(SECRET, value)  # type: ignore[union-attr]  # its caller has looked
            return value
        if isinstance(value, Mapping):
            return {self._scrub_value(name): self._scrub_value(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._scrub_value(part) for part in value]
        return value

    def _refresh(self) -> None:
        if not self._is_stale:
            return
        known, sent = set(self._known), set(self._sent)
        in_any_case = known | {value.lower() for value in known} | {value.upper() for value in known}
        forms = sorted(_all_forms(in_any_case), key=len, reverse=True)
        self._heads = {form[:_HEAD] for form in forms}
        self._everywhere = _either([*map(_broken, sorted(known, key=len, reverse=True)), *map(_cut_short, forms)])
        self._answer_forms = sorted(_all_forms(sent), key=len, reverse=True)
        self._in_answers = _either(map(re.escape, self._answer_forms))
        self._answer_starts = frozenset(form[:end] for form in self._answer_forms for end in range(1, len(form)))
        self._longest_start = max(map(len, self._answer_starts), default=0)
        self._ends_of_starts = frozenset(start[-1] for start in self._answer_starts)
        self._in_starts = _either(re.escape(first) for first in {start[0] for start in self._answer_starts})
        self._reply_forms = [form.encode() for form in self._answer_forms]
        self._in_replies = re.compile(b"|".join(map(re.escape, self._reply_forms))) if sent else None
        self._is_stale = False


def scrub_shapes(text: str) -> str:
    """Return a text without anything that looks like a secret, such as ``user:password@`` in a URL."""
    if any(map(text.__contains__, _SIGNS)):  # no generator: each log line is looked at
        for shape in _shapes():
            text = shape.sub(rf"\1{SECRET}", text)
    return text


@functools.cache
def _shapes() -> tuple[re.Pattern[str], ...]:
    """Return the patterns, compiled on first use to keep imports of a producer cheap."""
    return (*(re.compile(shape, re.IGNORECASE) for shape in _SHAPES), re.compile(f"(){_KEY_SHAPES}"))


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Yield the texts that a table or a query holds under names such as ``api_key`` or ``authorization``."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from secrets_in(part, key if not _NAMES_A_SECRET.search(name) else name)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from secrets_in(part, name)
    elif isinstance(value, str) and _NAMES_A_SECRET.search(name):
        yield from header_secrets(value)


def header_secrets(value: str) -> tuple[str, str]:
    """Return the value of a header, and the part after "Bearer" or "Basic"."""
    return value, _SCHEME.sub("", value)


@functools.cache
def process_secrets() -> Secrets:
    """Return this process's secrets."""
    return Secrets()


def scrub(text: str) -> str:
    """Return a text without any secret of this process and without anything that looks like one."""
    return process_secrets().scrub(text)


def learn_settings(settings: Settings) -> None:
    """Learn the secrets of a configuration: models' keys, passwords in URLs, headers for Loki and traces."""
    known = process_secrets()
    for model in settings.models.values():
        known.learn(os.environ.get(model.api_key_env or "", "").strip(), is_sent=True)
        known.learn(*secrets_in(model.parameters), is_sent=True)
        known.learn_url(model.api_base, is_sent=True)
    for program in settings.programs.values():
        for variant in program.variants.values():
            known.learn(*secrets_in(variant.parameters), is_sent=True)
    known.learn(*header_secrets(os.environ.get(settings.logging.loki_authorization_env or "", "")))
    for url in (settings.redis_url, settings.broker_url, settings.result_url, settings.money_url):
        known.learn_url(url)
    for url in (*settings.redis_urls, *settings.former_redis_urls):
        known.learn_url(url)
    known.learn(settings.sentinel_password)
    known.learn_url(settings.logging.loki_url)
    known.learn_url(settings.tracing.endpoint)
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        for header in os.environ.get(name, "").split(","):
            known.learn(*header_secrets(unquote(header.partition("=")[2]).strip()))
    known.learn(*(os.environ.get(name) for name in _CLOUD_VARIABLES), is_sent=True)


def _all_forms(values: Iterable[str]) -> set[str]:
    return {form for value in values for form in _forms(value) if len(form) >= _SHORTEST}


def _forms(value: str) -> Iterator[str]:
    escaped = json.dumps(value)[1:-1]
    yield from (value, repr(value)[1:-1])
    yield from (escaped, escaped.replace("/", r"\/"), json.dumps(value, ensure_ascii=False)[1:-1])
    yield value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    for encoded in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield encoded
        yield re.sub(r"%..", lambda found: found[0].lower(), encoded)
    yield from _in_base64(value.encode(errors="surrogatepass"))


def _in_base64(value: bytes) -> Iterator[str]:
    """Yield the base64 forms of a value inside a longer text, one for each alignment."""
    for offset, unsure in enumerate((0, 2, 3)):
        encoded = base64.b64encode(bytes(offset) + value).decode()
        sure = encoded[unsure : len(encoded) - (0, 3, 2)[(offset + len(value)) % 3]]
        if len(sure) >= _HEAD:
            yield sure
            yield sure.replace("+", "-").replace("/", "_")


def _cut_short(form: str) -> str:
    """Return a pattern of a text, whole or cut short."""
    head, rest = form[:_HEAD], form[_HEAD:]
    return re.escape(head) + (r"[^\s\"'<>,;&]*" if rest else "")


def _broken(value: str) -> str:
    """Return a pattern of a text that may be broken over lines, or into parts in quotes."""
    return _BETWEEN.join(map(re.escape, value))


def _either(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(patterns)
    return re.compile(joined) if joined else None
