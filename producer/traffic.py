"""The demo's traffic: a steady trickle of reviews, of which half have been asked about before.

``python -m producer.traffic --per-second 1 --count 100``; without a count it goes on until it is told to end.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dspyq.errors import DspyqError
from producer import predict

_WAITING_AT_ONCE = 16
_ANSWER_TIMEOUT_SECONDS = 120
_SAY_EVERY = 60
_ASKED_AGAIN = 0.5

_THINGS = ("film", "book", "meal", "hotel", "phone", "lamp", "course", "game", "bicycle", "coat")
_WHOSE = ("my sister's", "our", "the old", "the new", "a friend's", "the second", "the blue", "this year's")
_VERDICTS = (
    "was a joy from the first minute to the last",
    "broke on the second day",
    "is worth every cent",
    "made us laugh, and then made us think",
    "was late, cold and dull",
    "does what it should, and nothing else",
)


def reviews(chance: random.Random) -> Iterator[str]:
    """Yield reviews without end; every other one has been there before."""
    asked: list[str] = []
    for number in itertools.count(1):
        if asked and chance.random() < _ASKED_AGAIN:
            yield chance.choice(asked[-200:])
        else:
            whose, thing, verdict = chance.choice(_WHOSE), chance.choice(_THINGS), chance.choice(_VERDICTS)
            asked.append(f"{number}. {whose} {thing} {verdict}.")
            yield asked[-1]


def ask(review: str) -> str:
    """Ask about a review and return what became of it: cached, computed, or the name of the error."""
    try:
        answer = predict.delay(text=review).get(timeout=_ANSWER_TIMEOUT_SECONDS)
    except (DspyqError, TimeoutError) as error:
        return type(error).__name__
    return "cached" if answer.metadata.cached else "computed"


def main() -> None:
    """Ask at the rate that was asked for, and say once a minute or so how it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=1.0)
    parser.add_argument("--count", type=int, help="how many to ask; without it, on and on")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    fates: collections.Counter[str] = collections.Counter()
    with ThreadPoolExecutor(_WAITING_AT_ONCE) as threads:
        chosen = itertools.islice(reviews(random.Random()), arguments.count)  # noqa: S311 - reviews, not keys
        for number, review in enumerate(chosen, 1):
            threads.submit(ask, review).add_done_callback(lambda done: fates.update([done.result()]))
            if number % _SAY_EVERY == 0:
                print(", ".join(f"{count} {fate}" for fate, count in fates.most_common()), flush=True)  # noqa: T201 - its output
            time.sleep(1 / arguments.per_second)
    print(", ".join(f"{count} {fate}" for fate, count in fates.most_common()), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
