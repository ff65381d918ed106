"""Code without a queue: the rows of a file through ``dspy.Parallel``, or through an asyncio loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import dspy

from benchmarks.subjects import program

_CONCURRENCY = int(os.environ["BENCHMARK_CONCURRENCY"])


def parallel(rows: list[str]) -> None:
    """Answer all rows, and write them at the end: ``dspy.Parallel`` returns them together."""
    run = dspy.Parallel(num_threads=_CONCURRENCY, disable_progress_bar=True)
    examples = [dspy.Example(question=question).with_inputs("question") for question in rows]
    run([(program._program, example) for example in examples])  # noqa: SLF001 - the same program as everybody's


async def loop(rows: list[str]) -> None:
    """Answer all rows, so many at once."""
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def answer(question: str) -> None:
        async with gate:
            await program._program.acall(question=question)  # noqa: SLF001 - as above

    url = os.environ["BENCHMARK_MODEL_URL"]
    lm = dspy.LM("openai/control", api_base=url, api_key="none", cache=False, num_retries=0, max_tokens=1024)
    with dspy.context(lm=lm):
        await asyncio.gather(*map(answer, rows))


if __name__ == "__main__":
    asked = [json.loads(line)["inputs"]["question"] for line in Path(sys.argv[2]).read_text().splitlines()]
    if sys.argv[1] == "asyncio":
        asyncio.run(loop(asked))
    else:
        parallel(asked)
