"""The header of a prediction's message: a request as its message carries it, beside the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dspyq.errors import InvalidRequest


class Header(NamedTuple):
    """A request as its message carries it, beside the inputs.

    Attributes:
        program: The program's name.
        variant: The variant's name.
        fingerprint: What the variant's answers depend on, where the message was sent.
        input_hash: As of ``Request``.
        request_id: As of ``Request``.
        refresh: As of ``Request``.
        is_claimed: Whether the message's task claimed the question when it was sent.
        batch: The batch that claimed it, and so pays for it; empty for none.
        needs: Names of features that the worker must have; one that lacks them leaves the job to a newer worker.
        scope: As of ``Request``.
        exposure: The call as the program's experiment counts it, where its worker is to count it.
        stream: Whether its text is streamed while it comes.
        tenant: As of ``Request``.
    """

    program: str
    variant: str
    fingerprint: str
    input_hash: str
    request_id: str
    refresh: bool
    is_claimed: bool
    batch: str = ""
    needs: tuple[str, ...] = ()
    scope: str = ""
    exposure: str = ""
    stream: bool = False
    tenant: str = ""

    def stated(self) -> dict[str, Any]:
        """Return the fields for a message, without those that are empty: workers of 0.1 refuse unknown fields."""
        stated = self._asdict()
        for name in _LEFT_OUT_IF_EMPTY:
            if not stated[name]:
                del stated[name]
        return stated

    @classmethod
    def read(cls, stated: object) -> Header:
        """Read a message's header; unknown fields of a newer producer are ignored.

        Raises:
            InvalidRequest: If a field is missing or is not of its type.
        """
        known = {name: stated[name] for name in cls._fields if name in stated} if isinstance(stated, Mapping) else {}
        if isinstance(known.get("needs"), list):
            known["needs"] = tuple(map(str, known["needs"]))
        faults = [name for name in cls._fields if name not in known and name not in cls._field_defaults]
        faults += [name for name, value in known.items() if type(value) is not _HEADER_TYPES[name]]
        if faults:
            raise InvalidRequest(
                f"the job's message has a header that this worker cannot read ({', '.join(faults)}): give producers "
                "and workers the same version of dspyq"
            )
        return cls(**known)

    @property
    def queue(self) -> str:
        """The variant's queue."""
        return f"{self.program}.{self.variant}"


_LEFT_OUT_IF_EMPTY = ("needs", "scope", "exposure", "stream", "tenant")
_HEADER_TYPES: dict[str, type] = {
    **dict.fromkeys(Header._fields, str),
    "refresh": bool,
    "is_claimed": bool,
    "needs": tuple,
    "stream": bool,
}
#: The need of a job whose question has a scope, or whose call is counted: its worker ends the count.
EXPERIMENT = "experiment"
#: The need of a tenant's job: its worker holds the cost of its calls in the tenant's accounts.
TENANT = "tenant"
