"""Tokens of images, audio and files in a request, as the model's table states them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dspyq.config.models import Model

_SETTINGS = {"image": "image_tokens", "audio": "audio_tokens", "document": "file_tokens", "binary": "file_tokens"}
_OTHERS = frozenset({"video", "builtin"})


class Media(NamedTuple):
    """Parts of a request that are no text.

    Attributes:
        tokens: The most tokens that they count as.
        data_bytes: The bytes of their data, which do not count as tokens.
        unbounded_part: The first part that has no bound, and the setting that gives it one.
    """

    tokens: int = 0
    data_bytes: int = 0
    unbounded_part: str | None = None


NO_MEDIA = Media()


def measure(stated: Any, model: Model) -> Media:
    """Measure the images, audio and files of a request.

    Args:
        stated: The request as plain data.
        model: The model's table.
    """
    tokens = data_bytes = 0
    for kind, part in _parts(stated):
        setting = _SETTINGS.get(kind)
        most: int | None = getattr(model, setting) if setting else None
        if most is None:
            advice = f"set models.{model.name}.{setting}" if setting else "leave it out, or run it without a limit"
            return Media(unbounded_part=f"has a part of the kind {kind} ({advice})")
        tokens += most
        data = part.get("data")
        data_bytes += len(data) if isinstance(data, str) else 0
    return Media(tokens, data_bytes)


def _parts(stated: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(stated, Mapping):
        kind = stated.get("type")
        if isinstance(kind, str) and (kind in _SETTINGS or kind in _OTHERS):
            yield kind, stated
        for value in stated.values():
            yield from _parts(value)
    elif isinstance(stated, list | tuple):
        for value in stated:
            yield from _parts(value)
