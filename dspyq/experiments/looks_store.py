"""Looks in Redis: the latest one, what all have found so far, and looks over time for the report."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import orjson

from dspyq.core.tolerated import tolerate
from dspyq.experiments.guards import GuardTrack
from dspyq.experiments.look import Look, UnreadableLook
from dspyq.experiments.looks import ChallengerTracks, LookedAt, Tracks
from dspyq.experiments.sequential import Track
from dspyq.experiments.state import ExperimentState
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import experiment_look_key, experiment_looks_key
from dspyq.store.scripts import load_script, read_hash

#: Looks over time that are kept; where there are more, every second one goes.
MOST_LOOKS = 500


@dataclass(frozen=True)
class Notes:
    """Notes of a referee, which the next one reads.

    Attributes:
        done: Findings that were acted on or reported: ``breach <challenger> <metric>``, ``broken``, ``lost``,
            ``wins <challenger>``.
        unfit_since: Since when an arm's calls have been refused, in seconds since 1970, by arm.
        folded_day: The last day whose judgements were folded, in days since 1970; 0 for none.
        ended_day: The day on which the end of the experiment was seen, likewise; 0 before.
    """

    done: frozenset[str] = frozenset()
    unfit_since: dict[str, float] = field(default_factory=dict)
    folded_day: int = 0
    ended_day: int = 0


class StoredLooks(NamedTuple):
    """The looks so far.

    Attributes:
        latest: The latest look; None before the first.
        tracks: What all looks have found.
        notes: The referee's.
    """

    latest: Look | None
    tracks: Tracks
    notes: Notes


def read_looks(state: ExperimentState) -> StoredLooks:
    """Return the looks at an experiment so far; none where they are those of an earlier one.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the experiment's looks"):
        found = read_hash(money_client().hgetall(experiment_look_key(state.program)))
    if found.get(b"epoch") != state.epoch.encode():
        return StoredLooks(None, Tracks(), Notes())
    try:
        tracks, notes = _read_tracks(found.get(b"tracks", b""))
        return StoredLooks(Look.read(found.get(b"look", b"")), tracks, notes)
    except (UnreadableLook, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        # As after a change of the form: the looks begin anew, under the next number.
        tolerate("experiment_look", error)
        number = found.get(b"number", b"0")
        return StoredLooks(None, Tracks(int(number) if number.isdigit() else 0), Notes())


def read_points(state: ExperimentState) -> list[Look]:
    """Return the looks over time, the oldest first, with the metrics that decide.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the experiment's looks"):
        read = money_client().pipeline(transaction=True)
        read.hget(experiment_look_key(state.program), "epoch")
        read.lrange(experiment_looks_key(state.program), 0, -1)
        epoch, stored = cast("tuple[bytes | None, list[bytes]]", tuple(read.execute()))
    points: list[Look] = []
    for each in stored if epoch == state.epoch.encode() else ():
        try:
            points.append(Look.read(each))
        except UnreadableLook as error:
            tolerate("experiment_look", error)
    return points


def write_look(state: ExperimentState, looked: LookedAt, notes: Notes) -> bool:
    """Write a look; return False, and write nothing, where another look came first.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("write the experiment's look"):
        reply = load_script(money_client(), "dspyq.experiments", "look")(
            [experiment_look_key(state.program), experiment_looks_key(state.program)],
            epoch=state.epoch,
            number=looked.look.number,
            id=os.urandom(8).hex(),
            look=looked.look.dump(),
            point=looked.look.dump_point(),
            tracks=_dump_tracks(looked.tracks, notes),
            most=MOST_LOOKS,
        )
    return bool(reply)


def _dump_tracks(tracks: Tracks, notes: Notes) -> bytes:
    challengers = {
        arm: {
            "metrics": {metric: list(track) for metric, track in each.metrics.items()},
            "guards": {metric: [list(track.interval), track.log_evidence] for metric, track in each.guards.items()},
            "information": each.information,
        }
        for arm, each in tracks.challengers.items()
    }
    return orjson.dumps(  # infinite ends of an interval are null
        {
            "number": tracks.number,
            "ratio": tracks.ratio_log_evidence,
            "challengers": challengers,
            "counted": tracks.counted,
            "has_lost_counts": tracks.has_lost_counts,
            "done": sorted(notes.done),
            "unfit_since": notes.unfit_since,
            "folded_day": notes.folded_day,
            "ended_day": notes.ended_day,
        }
    )


def _read_tracks(stored: bytes) -> tuple[Tracks, Notes]:
    stated = orjson.loads(stored)
    challengers = {
        arm: ChallengerTracks(
            {metric: _track(each) for metric, each in found["metrics"].items()},
            {metric: GuardTrack(_track(each[0]), float(each[1])) for metric, each in found["guards"].items()},
            found["information"],
        )
        for arm, found in stated["challengers"].items()
    }
    days = (int(stated.get(name, 0)) for name in ("folded_day", "ended_day"))
    notes = Notes(frozenset(stated["done"]), dict(stated["unfit_since"]), *days)
    counted = {arm: tuple(map(int, each)) for arm, each in stated.get("counted", {}).items()}
    has_lost_counts = bool(stated.get("has_lost_counts"))
    return Tracks(int(stated["number"]), float(stated["ratio"]), challengers, counted, has_lost_counts), notes


def _track(stated: list[Any]) -> Track:
    low, high, evidence, is_plan_over, looks = stated[:5]
    return Track(
        -math.inf if low is None else float(low),
        math.inf if high is None else float(high),
        float(evidence),
        bool(is_plan_over),
        int(looks),
    )
