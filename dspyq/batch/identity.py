"""What makes a batch this batch: its rows, and whatever decides what OUT says of them."""

from __future__ import annotations

import orjson

from dspyq.batch.journal import Journal
from dspyq.batch.options import BatchOptions
from dspyq.config.models import Program
from dspyq.errors import BatchRefused

#: How a refusal names what differs, in the order of how much it explains.
_NAMES = {
    "input": "IN has changed",
    "program": "--program",
    "variant": "--variant",
    "is_paired": "--paired",
    "is_ordered": "--ordered",
    "format": "--format",
    "experiment": "the program, its variants or their weights in the configuration have changed",
}


def identity_of(options: BatchOptions, program: Program, digest: str) -> dict[str, str]:
    """Return what makes a batch this batch.

    Args:
        options: What is asked of it.
        program: The program.
        digest: That of its input.
    """
    variants = program.variants.values() if options.variant is None else [program.variants[options.variant]]
    experiment = [[variant.name, program.fingerprints[variant.name], variant.weight] for variant in variants]
    return {
        "input": digest,
        "program": program.name,
        "variant": options.variant or "",
        "is_paired": str(options.is_paired),
        "is_ordered": str(options.is_ordered),
        "format": options.format or "",
        "experiment": orjson.dumps([program.salt, experiment]).decode(),
    }


def check_identity(journal: Journal, identity: dict[str, str]) -> None:
    """Refuse to go on with a batch as another one.

    Raises:
        BatchRefused: If anything differs; it names that.
    """
    before = journal.identity()
    differing = [name for name in _NAMES if before.get(name) != identity[name]]
    if not differing:
        return
    said = [_said(name, before.get(name, ""), identity[name]) for name in differing]
    raise BatchRefused(
        f"{journal.path} is of another batch: {'; '.join(said)}. Choose another --output, or ask as before"
    )


def _said(name: str, before: str, now: str) -> str:
    if not _NAMES[name].startswith("--"):
        return _NAMES[name]
    return f"{_NAMES[name]} was {before or 'left out'} and is {now or 'left out'}"
