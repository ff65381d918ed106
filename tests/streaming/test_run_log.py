"""The log of a run: what is sent, in which entries, and what a listener gets of it."""

import pytest
import redis

from dspyq.config.secrets import process_secrets
from dspyq.store.keys import stream_key
from dspyq.store.scripts import load_script, run_together
from dspyq.streaming.chunks import Chunk, ListenerView
from dspyq.streaming.frames import Frame, read_entries, write_entry
from dspyq.streaming.run_log import MOST_BYTES, RunLog

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def push(client):
    return load_script(client, "dspyq.streaming", "push")


@pytest.fixture
def send(client, push):
    """Send what was added to a log, as the flusher does."""

    def act(log, **options):
        step = log.step(push, options.pop("fence", ""), **options)
        return None if step is None else run_together(client, [step])

    return act


def run_log(fence="1"):
    return RunLog("task", fence, lambda: None)


def entries(client):
    return [frame for frame, _ in read_entries("task", client.get(stream_key("task")) or b"", 0)]


def deltas(client):
    return [text for kind, _, text in entries(client) if kind == "delta"]


def test_the_deltas_of_one_field_are_sent_as_one(client, send):
    log = run_log()
    for piece in "abc":
        log.add("delta", "answer", piece)
    log.add("status", "tool", "search")
    log.add("delta", "answer", "d")
    send(log)
    assert entries(client) == [
        Frame("run", "", "1"), Frame("delta", "answer", "abc"), Frame("status", "tool", "search"),
        Frame("delta", "answer", "d"),
    ]  # fmt: skip
    assert 0 < client.ttl(stream_key("task")) <= 120


def test_the_first_text_of_a_run_is_sent_at_once():
    wakes = []
    log = RunLog("task", "1", lambda: wakes.append(1))
    log.add("status", "tool", "search")
    assert not wakes
    for piece in "ab":
        log.add("delta", "answer", piece)
    assert len(wakes) == 1


def test_a_push_whose_reply_was_lost_is_repeated_without_harm(client, push, send):
    log = run_log()
    log.add("delta", "answer", "one")
    for _ in range(2):  # also the first of a run
        client.execute_command(*log.step(push, "").command)
    log.add("delta", "answer", " two")
    send(log)
    send(log)
    log.add("delta", "answer", " three")
    client.execute_command(*log.step(push, "").command)
    log.add("delta", "answer", " four")
    send(log)
    send(log)
    assert entries(client)[0] == Frame("run", "", "1")
    assert deltas(client) == ["one", " two", " three", " four"]


def test_a_later_run_goes_on_with_the_log_and_the_earlier_one_writes_no_more(client, send):
    old, new = run_log("1"), run_log("2")
    old.add("delta", "answer", "old")
    send(old)
    new.add("delta", "answer", "new")
    send(new)
    old.add("delta", "answer", " and more")
    send(old)
    send(old, looks=True)
    new.add("delta", "answer", "er")
    send(new)
    assert deltas(client) == ["old", "new", "er"]


def test_a_run_that_has_lost_its_job_writes_nothing_and_ends_what_waits(client, send):
    client.hset("dspy:v1:job:task", "fence", "2")
    log, ended = run_log("1"), []
    log.at_loss(lambda: ended.append("first"))
    send(log, fence="1")
    assert log.is_lost
    log.at_loss(lambda: ended.append("later"))
    assert ended == ["first", "later"]
    assert not client.exists(stream_key("task"))


def test_a_look_at_a_lost_job_sends_nothing(client, send):
    client.hset("dspy:v1:job:task", "fence", "1")
    log = run_log("1")
    send(log, fence="1")
    assert send(log, fence="1") is None
    length = client.strlen(stream_key("task"))
    send(log, fence="1", looks=True)
    assert client.strlen(stream_key("task")) == length
    client.delete("dspy:v1:job:task")
    send(log, fence="1", looks=True)
    assert log.is_lost


def test_a_log_that_expired_is_not_begun_anew_in_its_middle(client, send):
    log = run_log()
    send(log)
    client.delete(stream_key("task"))
    log.add("delta", "answer", "x")
    send(log)
    send(log, looks=True)
    assert not client.exists(stream_key("task"))


def test_a_log_ends_at_its_most_bytes_with_a_state(client, send):
    log = run_log()
    for number in range(40):
        log.add("delta", "answer", f"{number}" * 4_000)
        send(log)
    assert client.strlen(stream_key("task")) < MOST_BYTES + 100
    assert entries(client)[-1] == Frame("status", "stream", "truncated")
    send(log, looks=True)
    assert not log.is_lost


def test_a_secret_that_comes_in_pieces_is_sent_in_none(client, send):
    process_secrets().learn("sk-very-secret-key", is_sent=True)
    log = run_log()
    for piece in ("It is sk-ve", "ry-sec", "ret-key, ok? Or sk", "y"):
        log.add("delta", "answer", piece)
        send(log)
    log.add("delta", "answer", " sk-very")
    log.add("delta", "note", "n")
    send(log)
    log.add("delta", "note", "sk-")
    send(log, is_last=True)
    found = {field: "".join(text for _, each, text in entries(client) if each == field) for field in ("answer", "note")}
    assert found == {"answer": "It is [secret], ok? Or sky sk-very", "note": "nsk-"}


def test_a_reset_drops_text_that_was_held_back(client, send):
    process_secrets().learn("sk-very-secret-key", is_sent=True)
    log = run_log()
    log.add("delta", "answer", "sk-v")
    send(log)
    log.add("reset", "answer", "retry")
    log.add("delta", "answer", "ery")
    send(log, is_last=True)
    assert [frame for frame in entries(client) if frame.kind != "run"] == [
        Frame("reset", "answer", "retry"), Frame("delta", "answer", "ery"),
    ]  # fmt: skip


def test_an_error_of_redis_keeps_what_was_not_sent(client, send):
    log = run_log()
    log.add("delta", "answer", "one")
    client.hset(stream_key("task"), "a", "key of another type")
    with pytest.raises(redis.ResponseError):
        send(log)
    client.delete(stream_key("task"))
    log.add("delta", "answer", " two")
    send(log)
    send(log)
    assert deltas(client) == ["one", " two"]


def view_of(*frames):
    view, chunks = ListenerView(), []
    for offset, frame in enumerate(frames, start=1):
        chunks += view.chunks_of(Frame(*frame), offset)
    return view, chunks


def test_a_new_run_voids_the_texts_of_the_one_before():
    _, chunks = view_of(("run", "", "1"), ("delta", "answer", "half"), ("run", "", "2"), ("delta", "answer", "whole"))
    assert chunks == [
        Chunk("status", "run", "running", 1), Chunk("delta", "answer", "half", 2), Chunk("reset", "answer", "rerun", 3),
        Chunk("status", "run", "running", 3), Chunk("delta", "answer", "whole", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("so_far", "answer", "rest"),
    [
        ("", "whole", [("delta", "whole")]),
        ("who", "whole", [("delta", "le")]),
        ("whole", "whole", []),
        ("other", "whole", [("reset", "answer"), ("delta", "whole")]),
        ("other", None, [("reset", "answer")]),
        ("other", "", [("reset", "answer")]),
    ],
)
def test_the_texts_are_the_answer_s_at_the_end(so_far, answer, rest):
    view, _ = view_of(("delta", "answer", so_far))
    *chunks, last = view.complete({"answer": answer}, ("answer",))
    assert [(chunk.kind, chunk.text) for chunk in chunks] == rest
    assert last == Chunk("completed", offset=1)


def test_entries_are_read_up_to_what_is_not_whole():
    log = write_entry("task", Frame("delta", "answer", "x\n2\n")) + write_entry("task", Frame("status", "a", "b"))
    for end in range(len(log)):
        read = list(read_entries("task", log[:end], 0))
        assert len(read) == (end >= read[0][1] if read else 0)
    frames = list(read_entries("task", log, 0))
    assert [frame for frame, _ in frames] == [Frame("delta", "answer", "x\n2\n"), Frame("status", "a", "b")]
    assert list(read_entries("task", log, frames[0][1])) == frames[1:]


def test_a_frame_of_a_newer_worker_is_passed_over():
    log = write_entry("task", Frame("novelty", "a", "b")) + write_entry("task", Frame("delta", "answer", "x"))
    assert [frame.kind for frame, _ in read_entries("task", log, 0)] == ["delta"]
