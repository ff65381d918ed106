"""Checks of endpoints' URLs and names of environment variables in a configuration. Errors never show their values."""

from __future__ import annotations

import ipaddress
import os
import re

from dspyq.errors import ConfigurationError

_URL = re.compile(r"^(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<rest>.*)$", re.DOTALL)
_PORT = re.compile(r"(?:\]|^[^:\[]*)(?::(?P<port>.*))?$", re.DOTALL)
_NOT_SENT = re.compile(r"[^\x21-\x7e]")
_NOT_IN_A_HEADER = re.compile(r"[^\x20-\x7e]")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_LARGEST_PORT = 65_535
_LONGEST_LABEL = 63


def check_address(url: str) -> str:
    """Return an endpoint's URL; it may not contain a user.

    Raises:
        ValueError: If no request could be sent there, or it contains a part that its setting does not accept.
    """
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("user:password@ is not sent; name the environment variable that holds the key instead")
    return check_collector(url)


def check_collector(url: str) -> str:
    """Return an endpoint's URL; it may contain a user and a password.

    Raises:
        ValueError: If no request could be sent there.
    """
    parts = _URL.match(url)
    if _NOT_SENT.search(url):
        raise ValueError("a blank, a control character or a character beyond ASCII stands in it; write those as %XX")
    if parts is None or parts["scheme"].lower() not in {"http", "https"}:
        raise ValueError("it is no URL that begins with http:// or https://")
    if "#" in parts["rest"]:
        raise ValueError("a fragment (#...) is not sent; leave it out")
    check_host(parts["authority"].rpartition("@")[2])
    return url


def check_origin(origin: str) -> str:
    """Return the origin of web pages: a scheme, a host, and a port where it is not the scheme's own.

    Raises:
        ValueError: If it is none, or stands for several.
    """
    if "*" in origin:
        raise ValueError("write each origin out; * would let every page in the world ask")
    check_collector(origin)
    parts = _URL.match(origin)
    if parts is None or parts["rest"] or "@" in parts["authority"]:
        raise ValueError("an origin is a scheme, a host and a port, as in https://app.example.com, and no path")
    return origin.lower()


def check_network(network: str) -> str:
    """Return the address of a host, or a network, as in ``10.0.0.0/8``.

    Raises:
        ValueError: If it is none.
    """
    return str(ipaddress.ip_network(network, strict=False))


def check_host(authority: str) -> None:
    """Check the host and port of a URL.

    Raises:
        ValueError: If there is no host, or no such port.
    """
    found = _PORT.search(authority)
    host = authority[: found.start("port") - 1] if found and found["port"] is not None else authority
    if not _is_host(host):
        raise ValueError("it has no host that can be looked up")
    if found is None or (found["port"] is not None and not _is_port(found["port"])):
        raise ValueError(f"its port is no number from 1 to {_LARGEST_PORT}")


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            return host.endswith("]") and bool(ipaddress.IPv6Address(host[1:-1].partition("%")[0]))
        except ValueError:
            return False
    return all(0 < len(label) <= _LONGEST_LABEL for label in host.removesuffix(".").split("."))


def check_variable(name: str) -> str:
    """Return the name of an environment variable.

    Raises:
        ValueError: If it is none, such as a key written here by mistake.
    """
    if not _VARIABLE.match(name):
        raise ValueError("it is no name of an environment variable; put the key into one, and name that here")
    return name


def read_variable(variable: str, setting: str) -> str | None:
    """Return the value of an environment variable, stripped; None if it is not set.

    Args:
        variable: Its name.
        setting: The setting that names it.

    Raises:
        ConfigurationError: If it is empty, or HTTP cannot carry it; its value is not shown.
    """
    value = os.environ.get(variable)
    if value is None:
        return None
    if not value.strip():
        raise ConfigurationError(f"{setting}: {named(variable)} is empty")
    if _NOT_IN_A_HEADER.search(value.strip()):
        raise ConfigurationError(
            f"{setting}: {named(variable)} holds a control character, a line break or a character beyond ASCII, which "
            "HTTP cannot carry: copy it anew"
        )
    return value.strip()


def named(variable: str) -> str:
    """Return a variable's name for an error; one in lower case is hidden: it may be a key written there by mistake."""
    return f"the environment variable {variable}" if variable.isupper() else "the environment variable that it names"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _LARGEST_PORT
