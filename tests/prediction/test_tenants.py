"""A tenant's calls: what is refused as a name, whose answers they are served, and what their messages state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from blake3 import blake3

from dspyq.client.message_template import Outgoing
from dspyq.client.publishing import find_template
from dspyq.delivery.kept_jobs import jobs_kept
from dspyq.errors import InvalidOption
from dspyq.prediction.header import TENANT, Header
from dspyq.prediction.request import build_request, build_requests, hash_inputs

INPUTS = {"question": "q"}


@pytest.mark.parametrize("name", ["a", "Acme-1", "eu.acme_2", "0" * 64])
@pytest.mark.usefixtures("configured")
def test_a_name_of_letters_digits_dots_dashes_and_underscores_is_a_tenant(name: str) -> None:
    assert build_request(INPUTS, tenant=name).tenant == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "-a", ".a", "a*", "é", "a\n", "0" * 65, 7, b"a", ["a"]])
@pytest.mark.usefixtures("configured")
def test_any_other_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="a tenant's name has 1 to 64 letters"):
        build_request(INPUTS, tenant=name)


@pytest.mark.usefixtures("configured")
def test_a_question_without_a_tenant_has_the_hash_that_it_had_before_there_were_any() -> None:
    request = build_request(INPUTS)
    fingerprint = request.program.fingerprints["control"]
    assert request.input_hash == blake3(f'qa\0{fingerprint}\0{{"question":"q"}}'.encode()).hexdigest()
    assert build_request(INPUTS, tenant=None).input_hash == request.input_hash


@pytest.mark.usefixtures("configured")
def test_each_tenant_s_question_is_another_in_each_form_of_the_call() -> None:
    hashes = [build_request(INPUTS, tenant=tenant).input_hash for tenant in (None, "a", "b")]
    assert len(set(hashes)) == 3
    (first, second) = build_requests([INPUTS, INPUTS], tenant="a")
    assert first.input_hash == second.input_hash == hashes[1]
    assert (first.tenant, second.tenant) == ("a", "a")


def test_tenant_and_scope_make_no_hash_of_another_pair() -> None:
    pairs = [("", ""), ("s", ""), ("", "s"), ("s", "t"), ("t", "s"), ("", "s\0t"), ("s\0t", "")]
    assert len({hash_inputs("qa", "f", b"{}", *pair) for pair in pairs[:5]}) == 5


def test_where_a_program_shares_its_answers_the_question_is_everyone_s(
    configure: Callable[..., Any], settings_file: Callable[..., Any]
) -> None:
    configure(settings_file({"programs": {"qa": {"share": "everyone"}}}))
    requests = [build_request(INPUTS, tenant=tenant) for tenant in (None, "a", "b")]
    assert len({each.input_hash for each in requests}) == 1
    assert [each.tenant for each in requests] == ["", "a", "b"]


@pytest.mark.usefixtures("configured")
def test_the_header_names_a_tenant_and_the_need_of_a_worker_with_tenants_only_where_there_is_one() -> None:
    stated = build_request(INPUTS, tenant="a").header(is_claimed=True).stated()
    assert (stated["tenant"], stated["needs"]) == ("a", (TENANT,))
    assert Header.read(orjson.loads(orjson.dumps(stated))).tenant == "a"
    plain = build_request(INPUTS).header(is_claimed=True).stated()
    assert not {"tenant", "needs"} & plain.keys()


@pytest.mark.usefixtures("configured")
def test_tenants_share_a_template_of_messages_that_equals_celery_s() -> None:
    from dspyq.client.publishing import publish

    requests = [build_request({"question": f"of {tenant}"}, tenant=tenant) for tenant in ("a", "b", None)]
    find_template(Outgoing(requests[0], "id"), 0)  # Celery settles its configuration with the first message
    templates = [find_template(Outgoing(request, "id"), 0) for request in requests]
    assert templates[0] is templates[1]
    assert templates[2] is not templates[0]
    for request, template in zip(requests, templates, strict=True):
        assert template is not None
        outgoing = Outgoing(request, "8f7b0d4e-0000-4000-8000-000000000000")
        made = template.make(outgoing)
        with jobs_kept() as jobs:
            publish(outgoing, {"priority": 0}, is_sample=True)
        assert (made.tenant, made.input_hash) == (request.tenant, request.input_hash)
        assert jobs[0].tenant == request.tenant
        own, celery_s = (orjson.loads(each.message) for each in (made, jobs[0]))
        assert own["headers"]["dspyq"] == celery_s["headers"]["dspyq"]
