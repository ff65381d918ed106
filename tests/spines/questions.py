"""Questions of each spine of this process's configuration."""

import itertools

from dspyq.prediction.request import build_request
from dspyq.store.spines import process_spines


def one_of_each(text, **options):
    """Return a question of each spine.

    Args:
        text: How the questions begin.
        **options: Those of the request on which its hash depends, such as a program or a tenant.
    """
    spines = process_spines()
    found = {}
    for question in (f"{text} {number}" for number in itertools.count()):
        request = build_request({"question": question}, **options)
        found.setdefault(spines.of(request.input_hash).number, question)
        if len(found) == len(spines.all):
            break
    return list(found.values())
