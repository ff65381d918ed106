"""Feedback tokens: an exposure as callers keep it, signed, so that no user can forge one.

A token states all that a judgement is counted by. So it works before, during and after everything else has expired.
"""

from __future__ import annotations

import hmac
import os
import re
from typing import NamedTuple

from blake3 import blake3

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.errors import ConfigurationError
from dspyq.experiments.exposure import Exposure
from dspyq.store.fleet_secret import FleetSecret
from dspyq.store.seal_keys import hash_of, process_question_keys
from dspyq.store.spines import id_beside

_FORM = "x1"
_MAC_BYTES = 8
_NONCE_BYTES = 8
_QUESTION_DIGITS = 8
#: Names as the configuration allows them; more than any token of ours is long.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_TOKEN = re.compile(
    rf"^{_FORM}\.({_NAME})\.([0-9a-f]{{1,32}})\.({_NAME})\.(\d{{1,4}})\.(\d{{1,4}})\.(\d{{1,7}})\.(\d{{1,6}})"
    r"\.([0-9a-f]{24})\.([0-9a-f]{16})$"
)


class ReadToken(NamedTuple):
    """A token that this fleet made.

    Attributes:
        exposure: The call.
        nonce: Its random name: judgements under the same one are of the same call.
    """

    exposure: Exposure
    nonce: str

    @property
    def question(self) -> str:
        """The name of its question."""
        return self.nonce[:_QUESTION_DIGITS]


class ForgedToken(ValueError):
    """No token, or none that this fleet signed."""


def make_token(exposure: Exposure, request_id: str, canonical_inputs: bytes, input_hash: str = "") -> str:
    """Return the token of a call: the same for the same request and inputs.

    Args:
        exposure: The call.
        request_id: The request.
        canonical_inputs: The question, as JSON with sorted keys.
        input_hash: The hash of the question, beside which its judgements are kept where there are several spines.
    """
    stated = request_id.encode("utf-8", "surrogatepass") + b"\0" + canonical_inputs
    nonce = hash_of(stated, process_question_keys().common).hexdigest(length=_NONCE_BYTES)
    nonce = question_name(canonical_inputs) + (id_beside(input_hash, nonce) if input_hash else nonce)
    program, *others = exposure
    text = ".".join(map(str, (_FORM, program, *others, nonce)))
    return f"{text}.{_mac(program, text)}"


def question_name(canonical_inputs: bytes) -> str:
    """Return what tokens and kept rows call a question: the same in every arm."""
    return hash_of(canonical_inputs, process_question_keys().common).hexdigest(length=_QUESTION_DIGITS // 2)


def read_token(token: str) -> ReadToken:
    """Read a token.

    Raises:
        ForgedToken: If it is none, or its signature is not this fleet's.
        ConfigurationError: If the secret of its program is to come from a variable that is unset.
        RedisUnavailable: If the fleet's secret cannot be read, and never was.
        DamagedKey: If another program wrote to its key.
    """
    found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if found is None:
        raise ForgedToken("it is no token of an exposure")
    program, epoch, arm, *numbers, nonce, mac = found.groups()
    if not hmac.compare_digest(mac, _mac(program, token.rpartition(".")[0])):
        raise ForgedToken("its signature is not this fleet's")
    return ReadToken(Exposure(program, epoch, arm, *map(int, numbers)), nonce)


def _mac(program: str, text: str) -> str:
    return blake3(text.encode(), key=_secret_of(program)).hexdigest(length=_MAC_BYTES)


def _secret_of(program: str) -> bytes:
    """Return the key of a program's tokens; a token may name any program."""
    stated = _stated_secret(program)
    return blake3(stated).digest() if stated else process_secret().key()


def _stated_secret(program: str) -> bytes | None:
    configured = get_settings().programs.get(program)
    experiment = configured.experiment if configured else None
    if experiment is None or experiment.secret_env is None:
        return None
    stated = os.environ.get(experiment.secret_env)
    if not stated:
        raise ConfigurationError(
            f"programs.{program}.experiment.secret_env: the environment variable {experiment.secret_env} is not set"
        )
    return stated.encode("utf-8", "surrogateescape")


@per_runtime
def process_secret() -> FleetSecret:
    """Return this process's view of the fleet's secret."""
    return FleetSecret("experiment-secret")
