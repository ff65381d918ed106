"""Calls as the budget bills them."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Accounts of a program beside those of its variants: of its shadow runs, and of score functions that call a model.
Payer = Literal["", "shadow", "judge"]


class BilledCall(NamedTuple):
    """One attempt to call a model.

    Attributes:
        id: ``<task id>:<fence>:<variant>:<number>``; no other attempt has it.
        program: The program that calls.
        variant: Its variant.
        model: The model's table in the configuration.
        batch: The id of the batch that pays for it; empty where none does.
        payer: The account of its program that pays in place of its variant's; empty for none.
        tenant: The tenant that pays; empty where none does.
    """

    id: str
    program: str
    variant: str
    model: str
    batch: str = ""
    payer: Payer = ""
    tenant: str = ""


class Bill(NamedTuple):
    """Cost and token usage of a call.

    Attributes:
        nano_usd: The amount; None if unknown: then the call is charged its bound.
        prompt_tokens: Tokens sent, by the provider's count; 0 without one.
        completion_tokens: Tokens generated, by the provider's count; 0 without one.
    """

    nano_usd: int | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
