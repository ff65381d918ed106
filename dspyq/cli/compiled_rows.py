"""Questions that an arm was compiled on and that users ask: an experiment would judge it by what it has seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dspyq.config.programs import Program
from dspyq.errors import ExperimentRefused, InvalidRequest
from dspyq.experiments import administration
from dspyq.experiments.rows import read_rows
from dspyq.experiments.token import question_name
from dspyq.prediction.contract import contract_of
from dspyq.prediction.enrolment import scopes
from dspyq.prediction.request import hash_inputs
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import alias_key
from dspyq.store.spines import spread


def find_compiled_rows(programs: Iterable[Program]) -> Iterator[str]:
    """Yield a warning for each arm with a state of its own whose demonstrations are questions of its traffic.

    Demonstrations are what a state file keeps of the rows that it was compiled on. The traffic's questions are those
    whose answers are cached, and those that the program's experiment keeps rows of.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    for program in programs:
        compiled = dict(_compiled_arms(program))
        if not compiled:
            continue
        asked = _asked(program, {canonical for demos in compiled.values() for canonical in demos})
        for arm, demos in compiled.items():
            if met := len(demos & asked):
                yield _warning(program, arm, f"users ask {met} of the {len(demos)} questions in its demonstrations")


def _warning(program: Program, arm: str, found: str) -> str:
    experiment = program.experiment.name if program.experiment else ""
    return (
        f"{program.served[arm].setting('state')}: {found}, so the experiment {experiment} would judge {arm} by what it "
        "was compiled on; trust a paired batch of held-out questions (dspyq experiment export --split), or compile it "
        "on other rows"
    )


def _compiled_arms(program: Program) -> Iterator[tuple[str, set[bytes]]]:
    """Yield each arm whose state is not that of all arms, with the questions of its demonstrations."""
    arms = [arm for arm in (program.experiment.arms if program.experiment else ()) if arm in program.variants]
    if len({program.served[arm].state_sha256 for arm in arms}) > 1:
        for arm in arms:
            state = program.served[arm].state
            if state is not None and (demos := set(_questions(program, state))):
                yield arm, demos


def _questions(program: Program, state: Path) -> Iterator[bytes]:
    """Yield the canonical inputs of each demonstration in a state file that states all inputs of the program."""
    names = [field.name for field in program.signature.inputs]
    contract = contract_of(program.name)
    for demo in _demos(json.loads(state.read_bytes())):
        try:
            yield contract.canonical({name: demo[name] for name in names if name in demo})
        except InvalidRequest:  # of a part of the program that has other inputs
            continue


def _demos(saved: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each demonstration of a saved program, or of its predictors."""
    if not isinstance(saved, dict):
        return
    for name, value in saved.items():
        if name == "demos" and isinstance(value, list):
            yield from (demo for demo in value if isinstance(demo, dict))
        else:
            yield from _demos(value)


def _asked(program: Program, questions: set[bytes]) -> set[bytes]:
    """Return those of the questions that users have asked."""
    listed = sorted(questions)
    with redis_errors("look for questions that were asked"):
        own = [(program.fingerprints[name], scope) for name in program.variants for scope in scopes(program, name)]
        asked = [
            (canonical, hash_inputs(program.name, of, canonical, scope)) for canonical in listed for of, scope in own
        ]
        hashes = [input_hash for _, input_hash in asked]
        exist = spread(hashes, hashes, _exist)
        cached = {canonical for (canonical, _), exists in zip(asked, exist, strict=True) if exists}
    kept = _kept_questions(program)
    return cached | {canonical for canonical in listed if question_name(canonical) in kept}


def _exist(hashes: Sequence[str], _: Sequence[int]) -> list[int]:
    """Return 1 for each of these questions of the active spine that is cached or runs."""
    reading = jobs_client().pipeline(transaction=False)
    for input_hash in hashes:
        reading.exists(alias_key(input_hash))
    return reading.execute()


def _kept_questions(program: Program) -> set[str]:
    """Return the questions that the program's latest experiment keeps rows of."""
    try:
        state, plan = administration.read_state(program.name), administration.read_plan(program.name)
    except ExperimentRefused:  # `dspyq experiment status` states the reason
        return set()
    if state is None or plan is None or not plan.table.get("keep_rows"):
        return set()
    return {row.question for row in read_rows(state)}
