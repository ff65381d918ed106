"""Many threads of one process that ask one question."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dspyq import predict


def ask(question: str, callers: int) -> list[str]:
    """Return every caller's answer."""

    def ask_once(_: int) -> str:
        answer: str = predict.delay(question=question).get(timeout=60).answer
        return answer

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(ask_once, range(callers)))
