"""``dspyq encryption``: lines for a file of keys, and what Redis holds by key."""

from __future__ import annotations

import json

from dspyq.sealing.keyring import new_key_line, read_keyring
from dspyq.store.content import Kind
from dspyq.store.keys import result_key


def test_new_key_prints_lines_that_a_file_of_keys_takes(dspyq):
    lines = [dspyq("encryption", "new-key", *more).stdout.strip() for more in ((), (), ("--index",))]
    ring = read_keyring(lines, "printed")
    assert (len(ring.keys), len(ring.index)) == (2, 1)
    stated = json.loads(dspyq("encryption", "new-key", "--index", "--json").stdout)
    assert read_keyring([*lines, " ".join(stated.values())], "printed").index.keys() >= {stated["id"]}


def test_status_counts_by_key_what_is_plain_and_what_no_key_here_opens(
    dspyq, configure, settings_file, tmp_path, client
):
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line()}\n{new_key_line('index')}\n")
    path = settings_file({"encryption": {"keys_file": "keys"}, "programs": {"qa": {"encrypt": "prefer"}}})
    configure(path)
    from dspyq.store.content import process_codec

    seals, opens = (line.split()[1] for line in keys.read_text().splitlines()[:2])
    sealed = process_codec().encode(Kind.RESULT, "one", b"{}")
    client.set(result_key("one"), sealed)
    client.set(result_key("two"), b'{"status": "SUCCESS"}')
    client.set(result_key("three"), sealed[:3] + b"k0000000" + sealed[11:])
    told = json.loads(dspyq("encryption", "status", "--json", settings=path).stdout)
    assert {key["id"]: (key["use"], key["envelopes"]) for key in told["keys"]} == {
        seals: ("seals", 1),
        opens: ("opens", 0),
    }
    assert (told["plain"], told["unknown"], told["tenants"]) == (1, {"k0000000": 1}, 0)
    shown = dspyq("encryption", "status", settings=path).stdout
    assert [word for word in (seals, opens, "k0000000", "unknown here", "plain text") if word not in shown] == []
    assert f"{opens} can be removed" in dspyq("encryption", "rotate", settings=path).stdout


def test_without_keys_the_mistake_is_one_line_and_a_program_cannot_ask_for_sealing(dspyq, settings_file):
    assert "add [encryption]" in dspyq("encryption", "status", ok=False).stderr
    path = settings_file({"programs": {"qa": {"encrypt": True}}})
    assert "programs.qa.encrypt needs keys" in " ".join(dspyq("check", settings=path, ok=False).stderr.split())
    path = settings_file({"encryption": {"keys_file": "nowhere"}, "programs": {"qa": {"encrypt": True}}})
    assert "encryption.keys_file" in dspyq("predict", "question=x", settings=path, ok=False).stderr
