"""The address of a Redis, parsed once and strictly; everything that connects to it uses this result.

Redis clients, kombu and Celery parse URLs differently: they disagree on options, sockets and databases.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dspyq.core.slots import HOME_TAG, tag_of

_PORT, _SENTINEL_PORT = 6379, 26379
_HIGHEST_PORT = 65_535
#: Each scheme, and whether it means TLS.
_ONE_SERVER = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_SENTINELS = {"sentinel": False, "sentinels": True}
_CLUSTERS = {"cluster": False, "clusters": True}
#: The spine of what the fleet has once.
HOME = "home"
#: A question's spine is chosen by one byte of its hash.
_MOST_SPINES = 256
_SOCKETS = ("unix", "redis+socket", "redis+unix")
_ENCODE = (
    "percent-encode every character of a user's name or password that is no letter or digit: "
    "python3 -c 'import urllib.parse; print(urllib.parse.quote(input(), safe=\"\"))'"
)


@dataclass(frozen=True)
class Address:
    """A Redis, or the sentinels that lead to it, or a cluster, or one slot of it.

    Attributes:
        hosts: Host and port of the server, of each sentinel, or of some of a cluster's nodes; none for a socket.
        path: The Unix socket's path.
        is_sentinel: Whether the hosts are those of sentinels.
        is_tls: Whether to speak TLS, to sentinels too.
        username: The user, where it is not the default one.
        password: The password, which no text shows.
        database: The database's number.
        options: Further options of connections, by redis-py's names.
        spines: How many slots of a cluster hold questions; 0 for what is no cluster.
        spine: The one slot that this address means: a spine's number from 0, or ``home`` for the slot of what the fleet
            has once; empty for the whole cluster.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    is_sentinel: bool = False
    is_tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    database: int = 0
    options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    spines: int = 0
    spine: str = ""

    def __str__(self) -> str:
        """Return the address for people, without its password."""
        if self.spines:
            scheme = "clusters" if self.is_tls else "cluster"
            one = f"?spine={self.spine}" if self.spine else ""
            return f"{scheme}://{','.join(_shown(*host) for host in self.hosts)}/{self.spines}{one}"
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        scheme = ("sentinel" if self.is_sentinel else "redis") + ("s" if self.is_tls else "")
        return f"{';'.join(f'{scheme}://{_shown(*host)}' for host in self.hosts)}/{self.database}"

    @property
    def celery_url(self) -> str:
        """URL for Celery and kombu: without secrets, and not used to connect."""
        host = _shown(*self.hosts[0]) if self.hosts else f"localhost:{_PORT}"
        return f"redis://{host}/{self.database}"

    @property
    def tag(self) -> str:
        """Start of every key of a cluster's slot; empty for what is no slot."""
        if not self.spine:
            return ""
        return HOME_TAG if self.spine == HOME else tag_of(int(self.spine), self.spines)


def spine_urls(url: str) -> list[str]:
    """Return the URL of each spine of a cluster; of another Redis its own."""
    address = parse_address(url)
    if not address.spines or address.spine:
        return [url]
    return [url_of_spine(url, str(number)) for number in range(address.spines)]


def url_of_spine(url: str, spine: str) -> str:
    """Return the URL of one spine of a cluster."""
    return f"{url.strip()}{'&' if '?' in url else '?'}spine={spine}"


@functools.cache
def parse_address(url: str) -> Address:
    """Read a URL.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, the sentinels' ``sentinel://`` joined by ``;``, or
            ``cluster://host:port,host:port/64`` with the number of spines, of which ``?spine=7`` means one.

    Raises:
        ValueError: If it does not name one Redis. The message shows only the names of options.
    """
    url = url.strip()
    if not url:
        raise ValueError("it is empty: leave it out or name a Redis, as redis://host:6379/0")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"it holds a blank or a control character; {_ENCODE}")
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in (*_ONE_SERVER, *_SENTINELS, *_CLUSTERS, *_SOCKETS):
        raise ValueError("it must begin with redis://, rediss://, unix://, sentinel:// or cluster://")
    if scheme in _CLUSTERS:
        return _cluster(scheme, url)
    if scheme in _SENTINELS:
        return _sentinels(scheme, [part for part in url.split(";") if part])
    parts = _split(url)
    username, password = _login(parts)
    options = _options(parts, is_tls=_ONE_SERVER.get(scheme, False))
    database = _database("" if scheme in _SOCKETS else parts.path, options)
    if scheme in _SOCKETS:
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("a socket is written with its whole path: unix:///run/redis/redis.sock?db=0")
        path = unquote(parts.path)
        return Address(path=path, username=username, password=password, database=database, options=_kept(options))
    return Address(
        hosts=(_host(parts, _PORT),),
        is_tls=_ONE_SERVER[scheme],
        username=username,
        password=password,
        database=database,
        options=_kept(options),
    )


def _sentinels(scheme: str, urls: list[str]) -> Address:
    """Parse the URLs of sentinels; options may be in any of them and hold for all."""
    hosts, said = [], dict[str, Any]()
    for url in urls:
        if url.partition("://")[0].lower() != scheme:
            raise ValueError(f"each sentinel must begin with {scheme}://, the next behind a semicolon; {_ENCODE}")
        parts = _split(url)
        hosts.append(_host(parts, _SENTINEL_PORT))
        username, password = _login(parts)
        options = _options(parts, is_tls=_SENTINELS[scheme])
        stated = {"username": username, "password": password, **options}
        if parts.path.strip("/") or "db" in options:
            stated["database"] = _database(parts.path, options)
        for name, value in stated.items():
            if value is not None and said.setdefault(name, value) != value:
                raise ValueError(f"its sentinels differ in the {name}: name it once")
    username, password, database = (said.pop(name, None) for name in ("username", "password", "database"))
    return Address(
        hosts=tuple(hosts),
        is_sentinel=True,
        is_tls=_SENTINELS[scheme],
        username=username,
        password=password,
        database=database or 0,
        options=_kept(said),
    )


def _cluster(scheme: str, url: str) -> Address:
    """Parse the URL of a cluster, whose nodes stand between commas behind one user and password."""
    start, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, nodes = authority.rpartition("@")
    first, *others = nodes.split(",")
    parts = _split(f"{start}://{login}{at}{first}{rest.removeprefix(authority)}")
    hosts = [_host(parts, _PORT), *(_host(_split(f"{start}://{node}"), _PORT) for node in others)]
    username, password = _login(parts)
    options = _options(parts, is_tls=_CLUSTERS[scheme], further=_OF_A_CLUSTER)
    if options.get("db"):
        raise ValueError("a cluster has one database; leave db out")
    named = parts.path.strip("/")
    if not (named.isascii() and named.isdigit() and 0 < int(named) <= _MOST_SPINES):
        raise ValueError(f"behind a cluster's hosts stands the number of its spines, 1 to {_MOST_SPINES}, as /64")
    spines, spine = int(named), options.pop("spine", "")
    if spine.isdigit() and int(spine) >= spines:
        raise ValueError(f"spine must be less than {spines}, the number of spines")
    return Address(
        hosts=tuple(hosts),
        is_tls=_CLUSTERS[scheme],
        username=username,
        password=password,
        options=_kept(options),
        spines=spines,
        spine=spine,
    )


def _split(url: str) -> SplitResult:
    if "#" in url:
        raise ValueError(f"it holds a # that is not percent-encoded; {_ENCODE}")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ENCODE}") from None
    if "@" in parts.path + parts.query:
        raise ValueError(f"it holds a / ? or @ that is not percent-encoded; {_ENCODE}")
    return parts


def _login(parts: SplitResult) -> tuple[str | None, str | None]:
    return (unquote(parts.username) if parts.username else None, unquote(parts.password) if parts.password else None)


def _host(parts: SplitResult, default_port: int) -> tuple[str, int]:
    host, port = parts.hostname, parts.port
    if not host:
        raise ValueError("it names no host: 127.0.0.1 is this machine")
    if "," in host or ";" in parts.netloc + parts.path:
        raise ValueError(
            f"it names several servers: name one, sentinels by sentinel://, or a cluster by cluster://; {_ENCODE}"
        )
    if port is not None and not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"its port is not between 1 and {_HIGHEST_PORT}")
    return unquote(host), port or default_port


def _database(path: str, options: Mapping[str, Any]) -> int:
    named = path.strip("/")
    if named and not (named.isascii() and named.isdigit()):
        raise ValueError("what stands behind the host must be the number of a database, as /0")
    if named and options.get("db", int(named)) != int(named):
        raise ValueError("it names two databases: one behind the host and one as ?db=")
    return int(named) if named else int(options.get("db", 0))


def _kept(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in options.items() if name != "db"))


def _options(
    parts: SplitResult, *, is_tls: bool, further: Mapping[str, Callable[[str], Any]] | None = None
) -> dict[str, Any]:
    known = {**_ANYWHERE, **_OF_TLS, **(further or {})}
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        name = _ALIASES.get(name, name)  # noqa: PLW2901 - under the name that redis-py has
        read = known.get(name)
        if read is None:
            shown = f" {name}" if name.isidentifier() else ""
            raise ValueError(f"unknown option{shown}; there are {', '.join(known)}")
        if name in _OF_TLS and not is_tls:
            raise ValueError(f"{name} has no meaning without TLS: begin with rediss://, sentinels:// or clusters://")
        if name in found:
            raise ValueError(f"it states {name} twice")
        try:
            found[name] = read(text)
        except ValueError as error:
            raise ValueError(f"{name} must be {error}") from None
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("a number from 0")
    return int(text)


def _spine(text: str) -> str:
    if text != HOME and not (text.isascii() and text.isdigit()):
        raise ValueError(f"a number from 0, or {HOME}")
    return text if text == HOME else str(int(text))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError("a number of seconds above 0")
    return seconds


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("true or false")
    return _FLAGS[text.lower()]


def _certificates(text: str) -> str:
    wanted = text.lower().removeprefix("cert_")
    if wanted not in ("required", "optional", "none"):
        raise ValueError("required, optional or none")
    return wanted


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("a file that is there")
    return text


def _folder(text: str) -> str:
    if not Path(text).is_dir():
        raise ValueError("a folder that is there")
    return text


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
#: Celery's name.
_ALIASES = {"virtual_host": "db"}
_ANYWHERE: dict[str, Callable[[str], Any]] = {
    "db": _number,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _flag,
    "health_check_interval": _seconds,
}
_OF_A_CLUSTER: dict[str, Callable[[str], Any]] = {"spine": _spine}
_OF_TLS: dict[str, Callable[[str], Any]] = {
    "ssl_cert_reqs": _certificates,
    "ssl_ca_certs": _file,
    "ssl_ca_path": _folder,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": str,
    "ssl_check_hostname": _flag,
}
