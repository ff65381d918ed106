"""The keys of a configuration: those that seal, and those that questions are hashed with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.sealing.key_source import KeyCommand, KeyFile, KeySource, KeyVariable, LiveKeys

if TYPE_CHECKING:
    from dspyq.config.sections import EncryptionSection


class QuestionKeys(NamedTuple):
    """The keys of hashes that a reader of Redis or of a log could compare with those of guessed inputs.

    Attributes:
        of_programs: Those of each program that is sealed; its questions are hashed with the first, and a job's may be
            hashed with any of them.
        common: The key of hashes that belong to no program; None where no program is sealed, for hashes without one.
    """

    of_programs: Mapping[str, tuple[bytes, ...]]
    common: bytes | None

    def of(self, program: str) -> bytes | None:
        """Return the key that a program's questions are hashed with; None for hashes without one."""
        keys = self.of_programs.get(program)
        return keys[0] if keys else None


def hash_of(text: bytes, key: bytes | None) -> blake3:
    """Return the BLAKE3 hash of a text, keyed if there is a key."""
    return blake3(text) if key is None else blake3(text, key=key)


@per_runtime(is_kept=True)
def process_question_keys() -> QuestionKeys:
    """Return the keys of hashes, as they were at the first use: another one empties the cache.

    Raises:
        ConfigurationError: If they cannot be read.
    """
    settings = get_settings()
    sealed = [name for name, program in settings.programs.items() if program.encrypt]
    if not sealed:
        return QuestionKeys({}, None)
    keys = tuple(process_keys().ring.index.values())
    return QuestionKeys(dict.fromkeys(sealed, keys), keys[0])


@per_runtime(renew=LiveKeys.renew)
def process_keys() -> LiveKeys:
    """Return the keys, which follow their source.

    Raises:
        ConfigurationError: If they cannot be read.
    """
    return LiveKeys(key_source(get_settings().encryption))


def key_source(section: EncryptionSection) -> KeySource:
    """Return the source that a table names.

    Raises:
        ConfigurationError: If it names none.
    """
    if section.keys_file is not None:
        return KeyFile(Path(section.keys_file))
    if section.keys_env is not None:
        return KeyVariable(section.keys_env)
    return KeyCommand(section.key_command or "")
