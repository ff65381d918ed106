"""Identity of a batch: its rows, and every setting that affects OUT."""

from __future__ import annotations

import orjson

from dspyq.batch.journal import Journal
from dspyq.batch.options import BatchOptions
from dspyq.config.programs import Program
from dspyq.errors import BatchRefused

#: Names of differences in a refusal, the most informative first.
_NAMES = {
    "input": "IN has changed",
    "program": "--program",
    "variant": "--variant",
    "tenant": "--tenant",
    "is_paired": "--paired",
    "is_ordered": "--ordered",
    "cluster": "--cluster",
    "is_scored": "--score",
    "format": "--format",
    "experiment": "the program, its variants or their weights in the configuration have changed",
}


def identity_of(options: BatchOptions, program: Program, digest: str) -> dict[str, str]:
    """Return the identity of a batch.

    Args:
        options: Its options.
        program: The program.
        digest: The hash of its input.
    """
    variants = program.variants.values() if options.variant is None else [program.variants[options.variant]]
    experiment = [[variant.name, program.fingerprints[variant.name], variant.weight] for variant in variants]
    return {
        "input": digest,
        "program": program.name,
        "variant": options.variant or "",
        "tenant": options.tenant or "",
        "is_paired": str(options.is_paired),
        "is_ordered": str(options.is_ordered),
        "cluster": options.cluster or "",
        "is_scored": "True" if options.is_scored else "",
        "format": options.format or "",
        "experiment": orjson.dumps([program.salt, experiment]).decode(),
    }


def check_identity(journal: Journal, identity: dict[str, str]) -> None:
    """Refuse to resume a batch as another one.

    Raises:
        BatchRefused: If anything differs; the message names it.
    """
    before = journal.identity()
    differing = [name for name in _NAMES if before.get(name, "") != identity[name]]  # older ones lack some
    if not differing:
        return
    said = [_said(name, before.get(name, ""), identity[name]) for name in differing]
    raise BatchRefused(
        f"{journal.path} is of another batch: {'; '.join(said)}. Choose another --output, or use the same options"
    )


def _said(name: str, before: str, now: str) -> str:
    if not _NAMES[name].startswith("--"):
        return _NAMES[name]
    return f"{_NAMES[name]} was {before or 'left out'} and is {now or 'left out'}"
