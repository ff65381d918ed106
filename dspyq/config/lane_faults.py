"""Faults of lanes: programs and models that cannot be served in the one that a batch states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dspyq.config.batches import ScheduledBatch
from dspyq.config.lanes import split_lane
from dspyq.config.programs import Program


def is_fit_for_provider_lane(served: Program) -> bool:
    """Return True if its code may run again for each call that waited: a signature's, or one that states so.

    Args:
        served: A program as a variant serves it.
    """
    return served.class_path is None if served.lanes is None else "provider" in served.lanes


def find_faults_of_lane(lane: str, program: Program, variant: str | None = None) -> Iterator[str]:
    """Yield why a program cannot be served in a lane, one line each.

    Args:
        lane: The lane.
        program: The program, as the file states it.
        variant: The variant that answers all rows; each of the program's where left out.
    """
    if split_lane(lane)[0] != "provider":
        return
    faults = {}  # several variants may share a model, or a class
    for name in [variant] if variant is not None else list(program.variants):
        served, model = program.as_served(name), program.variants[name].model
        if not is_fit_for_provider_lane(served):
            faults[served.setting("class")] = (
                f'its code runs again for each call that waited; state programs.{program.name}.lanes = ["provider"] '
                "where that does no harm, or leave out the lane"
            )
        if model.batch_protocol is None:
            faults[f"models.{model.name}.batch"] = (
                'this model has no batch interface; state batch = "openai" where its endpoint has one, or leave out '
                "the lane"
            )
    yield from (f"{setting}: {fault}" for setting, fault in faults.items())


def find_lane_faults(batches: Mapping[str, ScheduledBatch], programs: Mapping[str, Program]) -> Iterator[str]:
    """Yield each scheduled batch whose lane cannot serve it, one line each."""
    for name, batch in batches.items():
        program = programs.get(batch.program or next(iter(programs), ""))
        if batch.lane is not None and program is not None:
            for fault in find_faults_of_lane(batch.lane, program, batch.variant):
                yield f"batches.{name}.lane: {fault}"
