"""Private parts of DSPy, and of what DSPy bundles, that dspyq.programs uses."""

from __future__ import annotations

import builtins
from weakref import WeakSet

import dspy
import pytest
from dspy import lm15
from dspy._vendor.lm15 import adaptation, errors, registry, serde
from dspy._vendor.lm15.providers import anthropic, base
from dspy._vendor.lm15.transports import ConnectError, ConnectTimeout, StdlibTransport
from dspy._vendor.lm15.transports._types import TransportResponse
from dspy.adapters import utils
from dspy.adapters.decision_state import DecisionState
from dspy.adapters.types.decision import Choice, Noul, Score
from dspy.clients import execution, model_metadata
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.predict import best_of_n, predict, refine
from dspy.signatures.signature import SignatureMeta
from dspy.utils.exceptions import AdapterParseError
from dspy.utils.parallelizer import ParallelExecutor
from pydantic import TypeAdapter
from tqdm import tqdm

from tests.support.contracts import parameters


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (LM15Engine, "__init__", "self config model_type"),
        (LM15Engine, "complete", "self request"),
        (LM15Engine, "resolve", "self model"),
        (LM15Engine, "_target", "self request streaming"),
        (StdlibTransport, "_open", "self parsed proxy origin connect_timeout"),
        (StdlibTransport, "stream", "self request"),
        (anthropic, "_reasoning_thinking_budget", "request"),
        (adaptation, "collecting", "policy provider planning"),
        (base, "_client_side_stop", "adaptations"),
        (base, "batch_entry_request", "model"),
        (anthropic.AnthropicLM, "build_request", "self request stream"),
        (anthropic.AnthropicLM, "parse_response", "self request response"),
        (base.BaseProviderLM, "normalize_error", "self status body"),
        (errors, "map_http_error", "status message provider env_keys provider_code request_id retry_after"),
        (model_metadata, "model_info", "provider model namespaces"),
        (model_metadata, "rate", "info key"),
        (registry, "lookup", "name"),
        (serde, "request_to_dict", "r"),
        (serde, "response_from_dict", "d"),
        (serde, "response_to_dict", "r include_provider_data"),
        (dspy.Module, "named_sub_modules", "self type_ skip_compiled"),
        (dspy.Adapter, "format_system_message", "self signature"),
        (SignatureMeta, "_get_fields_with_type", "cls field_type"),
        (serde, "_clean_mapping", "values"),
        (execution, "_check_encodable", "value where"),
        (predict, "resolve_adapter", "lm adapter signature fields declared_signature"),
        (DecisionState, "__init__", "self signature fields system_one declared_signature"),
        (dspy.ChatAdapter, "user_message_output_requirements", "self signature"),
    ],
)
def test_what_is_overridden_or_called_has_its_parameters(owner: object, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def test_a_transport_takes_the_limits_of_a_model() -> None:
    options = set(parameters(StdlibTransport, "__init__").split())
    assert {"read_timeout", "write_timeout", "max_connections", "proxy", "trust_env"} <= options


def test_a_model_is_routed_without_network() -> None:
    route = LM15Engine(lm15.RouterConfig(env={})).resolve("openai/gpt-4o-mini")
    assert hasattr(registry.lookup(route.provider), "base_url")


def test_a_request_reads_back_from_what_it_is_kept_as() -> None:
    messages = [{"role": "user", "content": "q"}]
    request = lm15.request_from_openai_chat({"model": "openai/gpt-4o-mini", "messages": messages, "max_tokens": 7})
    stated = serde.request_to_dict(request)
    assert "q" in str(stated)
    assert stated == serde.request_to_dict(request)


def test_a_table_of_prices_comes_along() -> None:
    info = model_metadata.model_info("openai", "gpt-4o-mini")
    assert model_metadata.rate(info, "input_cost_per_token") > 0


def test_a_status_makes_the_error_that_stands_for_it() -> None:
    assert isinstance(errors.map_http_error(429, "slow down"), lm15.RateLimitError)
    assert isinstance(errors.map_http_error(503, "down"), lm15.ServerError)
    assert issubclass(ConnectError, Exception)
    assert issubclass(ConnectTimeout, Exception)
    assert issubclass(AdapterParseError, Exception)


def test_modules_print_by_the_name_that_is_replaced_and_adapters_build_types_by_theirs() -> None:
    for function in (best_of_n.BestOfN.forward, refine.Refine.forward):
        assert "print" in function.__code__.co_names
        assert function.__globals__.get("print", builtins.print)
    assert utils.TypeAdapter is TypeAdapter or callable(utils.TypeAdapter)


def test_parallel_runs_clear_the_one_registry_of_bars() -> None:
    assert isinstance(tqdm._instances, WeakSet)
    assert "_instances" in ParallelExecutor.execute.__code__.co_names
    bar = tqdm(disable=False, total=1)
    assert bar in tqdm._instances
    ParallelExecutor(num_threads=1, disable_progress_bar=True).execute(str, [])
    assert bar not in tqdm._instances
    bar.close()


def test_a_response_is_read_from_the_chunks_that_it_holds() -> None:
    chunks = iter((b"a", b"b"))
    response = TransportResponse(
        status=200, reason="OK", headers=[], http_version="HTTP/1.1", chunks=chunks, release=lambda *_, **__: None
    )
    response._chunks = iter([chunk.upper() for chunk in response._chunks])
    assert response.read() == b"AB"


@pytest.mark.parametrize("kind", [Noul, Choice, Score])
def test_a_kind_of_decision_is_found_in_the_annotation_of_a_field(kind: type) -> None:
    assert parameters(kind, "extract_custom_type_from_annotation") == "cls annotation"
    assert not kind.extract_custom_type_from_annotation(str)
    assert kind.extract_custom_type_from_annotation(list[kind])


def test_a_setting_of_ours_is_carried_by_a_context() -> None:
    assert dspy.settings.get("dspyq_contract") is None
    with dspy.context(dspyq_contract=3):
        assert dspy.settings.get("dspyq_contract") == 3
