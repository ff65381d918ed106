"""Route to a model's provider: its key, its URL, the proxy before it, and the transport that uses them.

Faults that would fail before a byte is sent are found at start. Secrets that the provider echoes are removed here.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dspy import lm15
from dspy._vendor.lm15.registry import lookup
from dspy._vendor.lm15.transports import ConnectTimeout, StdlibTransport

from dspyq.config.models import Model
from dspyq.config.secrets import process_secrets
from dspyq.core.address import check_host, named, read_variable
from dspyq.errors import ConfigurationError
from dspyq.programs.deadline import DeadlineSocket, remaining_seconds
from dspyq.programs.repair import KeepsReplies
from dspyq.programs.stated_errors import find_stated_error

#: Threads bound the connections. A lower bound would make calls wait for one outside of their deadline.
_MAX_CONNECTIONS = 65_536
#: Local servers require a key and accept any.
_NO_KEY = "none"
_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_EVENTS = "text/event-stream"
_NOT_IN_A_HOST = re.compile(r"[^\x21-\x7e]|[/?#]")


def read_key(model: Model, route: lm15.Resolution) -> str | None:
    """Return the API key; None if the provider uses the machine's identity instead, as clouds do.

    Raises:
        ConfigurationError: If there is none, or HTTP cannot carry it; its value is not shown.
    """
    setting = f"models.{model.name}.api_key_env"
    if model.api_key_env is not None:
        return _key_in(model.api_key_env, setting)
    if route.credential_policy != "key":
        return None
    if model.api_base is None and route.placeholder_key is None:
        raise ConfigurationError(
            f"{setting}: {route.provider} needs a key; name the environment variable that holds it, "
            f"or set models.{model.name}.api_base to an endpoint that needs none"
        )
    return _NO_KEY


def _key_in(variable: str, setting: str) -> str:
    key = read_variable(variable, setting)
    if key is None:
        raise ConfigurationError(f"{setting}: {named(variable)} is not set")
    process_secrets().learn(key, is_sent=True)
    return key


class ProviderTransport(KeepsReplies, StdlibTransport):  # type: ignore[misc]  # dspy ships no types
    """DSPy's transport with the call's deadline on its connections and secrets removed from replies.

    ``base`` is the endpoint's URL as configured, ``query`` the query that each URL gets, ``route_proxy`` the proxy.

    Args:
        model: The model's table.
        route: The way to its provider.

    Raises:
        ConfigurationError: If the environment's proxy cannot be used; its value is not shown.
    """

    def __init__(self, model: Model, route: lm15.Resolution) -> None:
        base, _, self.query = (model.api_base or "").partition("?")
        self.base = base.rstrip("/") or None
        definition = lookup(route.provider)
        url = self.base or (definition.base_url if definition else None)
        proxies = getproxies()
        self._name = model.name
        self._stated = threading.local()
        self.route_proxy = _proxy_to(url, proxies) if url else None
        super().__init__(
            read_timeout=model.timeout_seconds,
            write_timeout=model.timeout_seconds,
            max_connections=_MAX_CONNECTIONS,
            proxy=self.route_proxy,
            # Only where the URL comes with the request: this reads the whole environment on each call.
            trust_env=url is None and bool(proxies),
        )

    def stream(self, request: Any) -> Any:
        """Send a request; secrets are removed from its reply, so that no error and no answer holds them.

        A reply that states an error in place of an answer gets the status that the error stands for.

        Raises:
            ConfigurationError: Of lm15, if the endpoint redirects.
        """
        if self.query:
            request.url += f"{'&' if '?' in request.url else '?'}{self.query}"
        response = super().stream(request)
        if response.status in _REDIRECTS:
            self._refuse_redirect(response)
        if process_secrets().is_echoed("\n".join([response.reason, *(value for _, value in response.headers)])):
            response.reason = _scrub_text(response.reason)
            response.headers = [(name, _scrub_text(value)) for name, value in response.headers]
        is_stream = _EVENTS in (response.header("content-type") or "")
        if response.status in _SUCCESS and is_stream:
            response._chunks = _scrubbed_lines(response._chunks)  # noqa: SLF001 - what the response's own methods read
        elif response.status in _SUCCESS:
            self._read_stated_error(response)
        else:
            response._chunks = _scrubbed(response._chunks)  # noqa: SLF001 - as above
        return response

    def mark_billed(self, error: Exception) -> None:
        """Attach the reply to the exception that its error raised in this thread, if the reply states a usage."""
        if (billed := getattr(self._stated, "billed", None)) is not None:
            self._stated.billed = None
            error.billed_reply = billed  # type: ignore[attr-defined]  # an exception takes what it is given

    def _refuse_redirect(self, response: Any) -> NoReturn:
        response.read()  # its connection is used again
        raise lm15.ConfigurationError(
            f"the endpoint redirects (HTTP {response.status}){_target(response.header('location'))}, which is not "
            f"followed, and nothing was charged; set models.{self._name}.api_base to the address that answers itself",
            status=response.status,
        )

    def _read_stated_error(self, response: Any) -> None:
        body = process_secrets().scrub_reply(response.read())
        stated = find_stated_error(body)
        if stated is not None:
            response.status, body, self._stated.billed = stated.status, stated.body, stated.billed
            if stated.retry_after_seconds is not None and response.header("retry-after") is None:
                response.headers.append(("retry-after", str(stated.retry_after_seconds)))
        response._chunks = iter((body,))  # noqa: SLF001 - it was read, and is to be read once more

    def _open(self, parsed: Any, *, connect_timeout: float, **route: Any) -> Any:
        seconds = remaining_seconds()
        if seconds <= 0:
            raise ConnectTimeout("the deadline has passed")
        connection = super()._open(parsed, connect_timeout=min(connect_timeout, seconds), **route)
        connection.sock = DeadlineSocket(connection.sock)
        return connection


def _scrubbed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body as one piece: a secret may stand across two."""
    yield process_secrets().scrub_reply(b"".join(chunks))


def _scrubbed_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a stream of events by whole lines: a secret within one may stand across two pieces."""
    rest = b""
    with closing(chunks):  # type: ignore[type-var]  # a generator of the transport
        for chunk in chunks:
            lines, line_end, rest = (rest + chunk).rpartition(b"\n")
            if line_end:
                yield process_secrets().scrub_reply(lines) + line_end
        if rest:
            yield process_secrets().scrub_reply(rest)


def _scrub_text(text: str) -> str:
    return process_secrets().scrub_reply(text.encode("iso-8859-1", "replace")).decode("iso-8859-1")


def _target(location: str | None) -> str:
    """Return the host of a redirect, without path and query, which may hold private data."""
    try:
        parts = urlsplit(location or "")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    host = f"{parts.scheme}://{parts.hostname}{port}"
    return f" to {_scrub_text(host)}" if parts.hostname and host.isprintable() else ""


def _proxy_to(url: str, proxies: dict[str, str]) -> str | None:
    """Return the environment's proxy for an endpoint.

    Raises:
        ConfigurationError: If it cannot be used; its value is not shown.
    """
    parts = urlsplit(url)
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy, host = proxies.get(scheme, "").strip(), parts.hostname or ""
    if not proxy or proxy_bypass(host) or _is_in_a_network(host, proxies.get("no", "")):
        return None
    variable = f"{scheme}_proxy".upper()
    try:
        return _http_proxy(proxy)
    except ValueError as error:
        raise ConfigurationError(f"{variable}: {error}") from None


def _http_proxy(proxy: str) -> str:
    scheme, separator, rest = proxy.partition("://")
    if separator and scheme.lower() != "http":
        raise ValueError(
            "only a proxy at http:// can be used, which tunnels to https:// endpoints; set it to one, or name the "
            "endpoint's host in NO_PROXY"
        )
    user_info, at, authority = (rest if separator else proxy).rstrip("/").rpartition("@")
    process_secrets().learn_url(f"http://{user_info}{at}{authority}", is_sent=True)
    if _NOT_IN_A_HOST.search(authority) or "/" in user_info:
        raise ValueError("a character stands in it that no host has; write those of a password as %XX")
    check_host(authority)
    return f"http://{user_info}{at}{authority}"


def _is_in_a_network(host: str, no_proxy: str) -> bool:
    """Return True if a host is an address in a network of ``NO_PROXY``; Python ignores networks."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for part in no_proxy.split(","):
            with suppress(ValueError):
                if "/" in part and address in ipaddress.ip_network(part.strip(), strict=False):
                    return True
    return False
