"""``dspyq feedback``: judge an answer for the experiment that its call is part of."""

from __future__ import annotations

from typing import Annotated

import typer

from dspyq.console.output import JsonOption, console, print_json
from dspyq.errors import FeedbackRefused
from dspyq.experiments.feedback import FeedbackOutcome, give_feedback

_WORDS = {
    "new": "counted",
    "same": "was given before",
    "replaced": "replaces an earlier one",
    "kept": "is not counted: an earlier one stays",
}


def feedback(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="metadata.exposure of the answer.")],
    judgements: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE", help="A judgement that the experiment states; one or more.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Count judgements of an answer, each once.

    Example: `dspyq feedback x1.qa.5f… thumbs=1`
    """
    given = dict(map(_parsed, judgements))
    outcomes: dict[str, FeedbackOutcome] = {}
    refused: list[str] = []
    for name, value in given.items():
        try:
            outcomes[name] = give_feedback(token, name, value)
        except FeedbackRefused as error:  # the others are judgements all the same
            refused.append(str(error))
    if as_json and outcomes:
        print_json(outcomes)
    for name, outcome in outcomes.items() if not as_json else ():
        console.print(f"{name}: {_WORDS[outcome]}")
    if refused:
        raise FeedbackRefused("; ".join(dict.fromkeys(refused)))


def _parsed(judgement: str) -> tuple[str, float]:
    name, _, value = judgement.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise FeedbackRefused("a judgement is NAME=VALUE with a number, as in thumbs=1") from None
