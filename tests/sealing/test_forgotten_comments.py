"""``dspyq forget`` and comments: they go by tenant and by hour, and those that state neither are counted."""

from __future__ import annotations

import pytest

from dspyq.cache.judgements import Judgement, count_judgement, keep_judgement, read_judgements
from dspyq.retention.forgetting import forget_before, forget_tenant
from dspyq.store import content
from dspyq.store.keys import judgements_key
from tests.sealing.test_rotation import NO_MEMORY

KEY = "dspy:v1:judgements:call"


def comments():
    return {each.name: each.comment for each in read_judgements("call") if each.comment is not None}


def give(client):
    """Comments of acme, of another tenant and of no one, by both ways; and two as an earlier version kept them."""
    count_judgement("qa.control", "call", Judgement("thumbs", 1.0, "one"), 60, "acme")
    keep_judgement("call", Judgement("stars", 1.0, "two"), 60, "acme")
    keep_judgement("call", Judgement("other", 1.0, "three"), 60, "other")
    keep_judgement("call", Judgement("none", 1.0, "four"), 60)
    for name in ("older", "oldest"):
        client.hset(
            KEY, mapping={f"value:{name}": 1, f"comment:{name}": content.encode(content.Kind.COMMENT, "call", b"x")}
        )
    assert judgements_key("call") == KEY


def of_comments(removal):
    return [each.partition(";")[0] for each in removal.not_reached if each.startswith("comments")]


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
def test_a_tenants_comments_go_and_those_that_name_no_tenant_are_counted(
    is_sealed, configure, sealed, settings_file, client
):
    configure(sealed(True, NO_MEMORY) if is_sealed else settings_file(NO_MEMORY))
    give(client)
    removal = forget_tenant("acme")
    assert (removal.comments, set(comments())) == (2, {"other", "none", "older", "oldest"})
    assert of_comments(removal) == ["comments on answers that name no tenant and are sealed with no tenant's key: 2"]
    assert {each.name for each in read_judgements("call")} >= {"thumbs", "stars"}  # judgements are counts


def test_a_comment_of_an_earlier_version_goes_with_the_key_that_sealed_it(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    give(client)
    client.hdel(KEY, "given:thumbs", "given:other")
    removal = forget_tenant("acme")
    assert (removal.comments, set(comments())) == (2, {"other", "none", "older", "oldest"})
    assert of_comments(removal) == ["comments on answers that name no tenant and are sealed with no tenant's key: 2"]


def test_comments_go_by_their_hour_and_those_of_the_same_hour_or_of_none_are_counted(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    give(client)
    now, _ = client.time()
    hour = int(client.hget(KEY, "given:thumbs").split()[0])
    assert now // 3600 - 1 <= hour <= now // 3600
    client.hset(KEY, mapping={"given:thumbs": "10 acme", "given:stars": "11 acme", "given:other": "12 "})
    removal = forget_before(11.5 * 3600)
    assert (removal.comments, set(comments())) == (1, {"stars", "other", "none", "older", "oldest"})
    assert of_comments(removal) == [
        "comments on answers of the hour of that moment: 1", "comments on answers that state no time: 2",
    ]  # fmt: skip
    assert forget_before(13.0 * 3600).comments == 2
    assert set(comments()) == {"none", "older", "oldest"}
    assert not client.hexists(KEY, "given:other")
