"""Tests of code that calls ``predict``: no Redis, no worker, no thread, no socket.

``answers`` gives canned or computed answers; ``running_programs`` runs the real programs on a model of yours::

    with answers({"answer": "42"}) as asked:
        assert client.get("/ask?q=x").json() == {"answer": "42"}
    assert asked[0].inputs == {"question": "x"}
"""

from dspyq.testing.answering import Answer, Delayed, NoAnswer, answers
from dspyq.testing.local_asker import Asked
from dspyq.testing.running import running_programs

__all__ = ["Answer", "Asked", "Delayed", "NoAnswer", "answers", "running_programs"]
