"""Values of Celery's options in a call: those that could not be sent are refused with the option's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kombu import compression

from dspyq.core.plain_json import SERIALIZER
from dspyq.errors import InvalidOption

#: Beyond this, no date can be computed.
_MOST_SECONDS = 100 * 366 * 86_400


def check_values(options: Mapping[str, Any]) -> None:
    """Check the values of a call's options before anything is sent.

    Raises:
        InvalidOption: If one cannot be sent.
    """
    for name, value in options.items():
        fits, expected = _CHECKS.get(name, _ANYTHING)
        if not fits(value):
            raise InvalidOption(f"{name} is {expected}")


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= _MOST_SECONDS


def _is_moment(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, datetime)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_link(value: Any) -> bool:
    links = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(link, Mapping) for link in links)  # a Celery signature is a dict, also after JSON


def _is_compression(value: Any) -> bool:
    try:
        compression.get_encoder(value)
    except (LookupError, TypeError):
        return False
    return True


_ANYTHING: tuple[Callable[[Any], bool], str] = (lambda _: True, "")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "compression": (_is_compression, "gzip, bzip2, or another method of kombu that is installed here"),
    "countdown": (_is_seconds, "a number of seconds"),
    "eta": (_is_moment, "a datetime, or its text in ISO form"),
    "expires": (lambda value: _is_seconds(value) or _is_moment(value), "a number of seconds, or a datetime"),
    "headers": (lambda value: isinstance(value, Mapping), "a dict"),
    "link": (_is_link, "a signature, as task.s(), or a list of them"),
    "link_error": (_is_link, "a signature, as task.s(), or a list of them"),
    "retry_policy": (lambda value: isinstance(value, Mapping), "a dict"),
    "serializer": (lambda value: value in {"json", SERIALIZER}, "json: workers read no other form"),
}
