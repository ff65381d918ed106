"""Access to a model's provider as plain data, for requests that do not pass through DSPy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """Access to a provider: the same as for live calls.

    Attributes:
        dialect: The form of its interface as DSPy names it, as in ``openai-chat``, ``anthropic`` or ``gemini``.
        base_url: The interface's root, as in ``https://api.openai.com/v1``, without a slash at its end.
        headers: The headers of a live call that name the account and the version; they hold the key.
        query: A query that each URL gets, without its question mark, as in ``api-version=2025-04-01``.
        proxy: The URL of an HTTP proxy; None without one.
        timeout_seconds: The most that one read or write of a socket may take.
        model: The model's name as the provider writes it; an interface may have it in its URL.
        setting: The table of the model, named in errors, as in ``models.fast``.
    """

    dialect: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    proxy: str | None = None
    timeout_seconds: float = 60.0
    model: str = ""
    setting: str = "models"

    def __repr__(self) -> str:
        """Show neither headers nor URL: both may hold secrets."""
        return f"ProviderAccess(dialect={self.dialect!r}, setting={self.setting!r})"
