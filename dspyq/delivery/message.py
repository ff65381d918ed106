"""A job's message as Celery gets it."""

# mypy: allow-untyped-calls
# kombu is typed in part only.

from __future__ import annotations

from typing import Any

from kombu.exceptions import DecodeError
from kombu.transport import virtual

from dspyq.core.names import HEADER
from dspyq.core.plain_json import shield_inputs
from dspyq.delivery.message_body import decode_body, is_of_task


class Message(virtual.Message):
    """Holds a prediction's inputs as plain JSON. A body that cannot be read is the job's fault, and sets it aside."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if is_of_task(self.headers) and isinstance(self.body, bytes):
            self.body = decode_body(self.headers, self.body)
        if HEADER in self.headers and isinstance(self.body, bytes):
            self.body = shield_inputs(self.body)

    def _decode(self) -> Any:
        """Return the body.

        Raises:
            ValueError: If it cannot be read; over a ``DecodeError`` Celery would log it and end the job unanswered.
        """
        try:
            return super()._decode()
        except DecodeError as error:
            raise ValueError(f"its body cannot be read: {type(error.__cause__ or error).__name__}") from None
