"""All batch interfaces of the endpoint over one store, and their control."""

from __future__ import annotations

from typing import Any

from tests.support.batch_endpoint.anthropic_routes import AnthropicRoutes
from tests.support.batch_endpoint.gemini_routes import GeminiRoutes
from tests.support.batch_endpoint.mistral_routes import MistralRoutes
from tests.support.batch_endpoint.openai_routes import OpenAIRoutes
from tests.support.batch_endpoint.store import AnswerLine, BatchScript, BatchStore
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest

_NANO_PER_MICRO = 1_000


class BatchService:
    """The batch interfaces of the endpoint.

    Args:
        answer: Answers a line, as the live interface would.
    """

    def __init__(self, answer: AnswerLine) -> None:
        self.store = BatchStore(answer)
        self._routes = tuple(kind(self.store) for kind in (OpenAIRoutes, MistralRoutes, AnthropicRoutes, GeminiRoutes))

    def answer(self, request: BatchRequest) -> BatchReply | None:
        """Answer a request; None if it is for no batch interface."""
        return next((found for routes in self._routes if (found := routes.answer(request)) is not None), None)

    def control(self, action: str, arguments: dict[str, Any], live_tokens: tuple[int, int]) -> Any:
        """Do what a test asks for; ``live_tokens`` are those of prompts and completions outside of batches."""
        shown = {
            "counts": self._counts,
            "bill": lambda: self._bill(live_tokens),
            "list": lambda: [self._batch(batch_id) for batch_id in self.store.batches],
            "files": lambda: [file.name for file in self.store.files.values()],
        }
        if action in shown:
            return shown[action]()
        return {"count": self._change(action, arguments)}

    def _change(self, action: str, arguments: dict[str, Any]) -> int | None:
        store = self.store
        match action:
            case "script":
                store.scripts.append(BatchScript(**arguments))
            case "clear":
                store.scripts.clear()
            case "finish":
                return store.finish(arguments.get("batch_ids") or ())
            case "advance":
                return store.advance(arguments["count"])
            case "prices":
                store.prices |= arguments
            case "limit":
                store.enqueued_limit_tokens = arguments["tokens"]
            case "pending":
                store.pending_polls = arguments["polls"]
            case "cut_lists":
                store.cut_lists = arguments["times"]
            case "page":
                store.most_per_page = arguments["entries"]
            case _:
                raise ValueError(f"there is no control/batches/{action}")
        return None

    def _counts(self) -> dict[str, Any]:
        store = self.store
        names = [
            batch.name for batch in store.batches.values() if batch.name and batch.state not in {"failed", "cancelled"}
        ]
        return {
            "creations": store.counts["creations"],
            "batches": store.counts["batches"],
            "uploads": store.counts["uploads"],
            "cancellations": store.counts["cancellations"],
            "polls_missed": store.counts["polls_missed"],
            "files_left": len(store.files),
            "files_deleted": store.files_deleted,
            "lines_billed": store.billed.total(),
            "billed_twice": sorted(custom_id for custom_id, times in store.billed.items() if times > 1),
            "double_names": sorted({name for name in names if names.count(name) > 1}),
        }

    def _bill(self, live_tokens: tuple[int, int]) -> dict[str, int]:
        prices = self.store.prices
        rates = [prices[f"{kind}_usd_per_million_tokens"] for kind in ("input", "output")]
        batch_tokens = (self.store.prompt_tokens, self.store.completion_tokens)
        factor = 1 - prices["discount"]
        live = sum(count * rate for count, rate in zip(live_tokens, rates, strict=True)) * _NANO_PER_MICRO
        batch = sum(count * rate * factor for count, rate in zip(batch_tokens, rates, strict=True)) * _NANO_PER_MICRO
        return {"batch_nano_usd": round(batch), "live_nano_usd": round(live), "nano_usd": round(batch + live)}

    def _batch(self, batch_id: str) -> dict[str, Any]:
        batch = self.store.batches[batch_id]
        return {
            "id": batch.id,
            "dialect": batch.dialect,
            "name": batch.name,
            "state": batch.state,
            "lines": len(batch.requests) or len(batch.results),
            "answered": batch.count("answered"),
        }
