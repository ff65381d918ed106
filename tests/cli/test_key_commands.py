"""``dspyq keys``: what it prints, what it keeps, and how it fails in one line."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from dspyq.api_keys.form import make_key, read_key_id, sha256_of
from dspyq.cli.main import app
from dspyq.errors import InvalidOption
from tests.support.configuration import environment


@pytest.fixture
def create(dspyq):
    """Create a key with these options, and return what is printed of it: ``create("--rate", "5")``."""

    def run(*options, tenant="acme", name="ci"):
        return json.loads(dspyq("keys", "create", "--tenant", tenant, "--name", name, "--json", *options).stdout)

    return run


@pytest.fixture
def keys(dspyq):
    """Run a command of keys, and return its JSON: ``keys("list")``."""
    return lambda *arguments: json.loads(dspyq("keys", *arguments, "--json").stdout)


def fault(done):
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_key_is_printed_once_and_only_its_hash_is_kept(create, keys, redis_server):
    made = create("--programs", "qa", "--rate", "20", "--expires", "90d")
    assert re.fullmatch(r"dspyq_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", made["key"])
    assert read_key_id(made["key"]) == made["id"]
    with redis_server.client() as client:
        record = client.hgetall(f"dspy:v1:key:{made['id']}")
        kept = "\n".join(f"{client.type(name)}" + str(_content(client, name)) for name in client.keys("*"))
    assert record["sha256"] == sha256_of(made["key"])
    secret = made["key"].rpartition("_")[2]
    assert secret[:12] not in kept
    shown = keys("show", made["id"])
    assert "key" not in shown
    assert (shown["tenant"], shown["name"], shown["status"]) == ("acme", "ci", "live")
    assert (shown["programs"], shown["rate"], shown["burst"]) == (["qa"], 20, 20)
    assert shown["can"] == ["predict", "stream", "batch", "feedback", "usage"]


def _content(client, name):
    readers = {"hash": client.hgetall, "set": client.smembers, "stream": client.xrange, "string": client.get}
    return readers[client.type(name)](name)


def test_a_key_is_not_printed_into_a_pipe(dspyq):
    refused = dspyq("keys", "create", "--tenant", "acme", "--name", "ci", ok=False)
    assert "--output FILE" in fault(refused)
    assert json.loads(dspyq("keys", "list", "--json").stdout) == []


def test_a_key_is_printed_to_a_terminal(session_settings_file, redis_server):
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "dspyq", "keys", "create", "--tenant", "acme", "--name", "ci"]
    variables = environment(session_settings_file, redis_server.url) | {"COLUMNS": "40"}
    subprocess.run(command, env=variables, stdout=terminal, stderr=subprocess.STDOUT, check=True)
    os.close(terminal)
    with os.fdopen(reader, "rb", buffering=0) as screen:
        lines = screen.read(10_000).decode().splitlines()
    assert [read_key_id(line) is not None for line in lines].count(True) == 1
    assert "only its hash is stored" in " ".join(lines)


def test_a_key_goes_to_a_file_for_its_owner_alone(dspyq, create, tmp_path):
    path = tmp_path / "acme.key"
    done = dspyq("keys", "create", "--tenant", "acme", "--name", "ci", "--output", str(path))
    key = path.read_text().strip()
    assert read_key_id(key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key not in done.stdout + done.stderr
    again = dspyq("keys", "create", "--tenant", "acme", "--name", "ci", "--output", str(path), ok=False)
    assert "cannot make" in fault(again)
    assert path.read_text().strip() == key
    assert "key" not in create("--output", str(tmp_path / "other.key"))


def test_a_new_tenant_gets_its_daily_limit_and_an_old_one_keeps_its_own(dspyq, create, keys):
    create("--daily", "5")
    (tenant,) = json.loads(dspyq("tenants", "list", "--json").stdout)
    assert (tenant["tenant"], tenant["accounts"][0]["limit_usd"]) == ("acme", 5)
    again = dspyq("keys", "create", "--tenant", "acme", "--name", "b", "--daily", "9", "--json", ok=False)
    assert "dspyq tenants limit acme --daily" in fault(again)
    create(name="c")
    (tenant,) = json.loads(dspyq("tenants", "list", "--json").stdout)
    assert tenant["accounts"][0]["limit_usd"] == 5
    assert [each["name"] for each in keys("list")] == ["ci", "c"]


def test_a_revoked_key_stays_revoked_and_leaves_the_list(dspyq, create, keys):
    made = create()
    other = create(name="other")
    assert keys("revoke", made["key"])["status"] == "revoked"  # a leaked key as it was found
    at = keys("show", made["id"])["revoked_at"]
    assert keys("revoke", made["id"])["revoked_at"] == at
    assert [each["id"] for each in keys("list")] == [other["id"]]
    assert {each["id"] for each in keys("list", "--revoked")} == {made["id"], other["id"]}
    for command in (["rotate", made["id"], "--json"], ["edit", made["id"], "--rate", "5"]):
        assert "is revoked, for good" in fault(dspyq("keys", *command, ok=False))


def test_the_keys_of_a_forgotten_tenant_are_revoked(dspyq, create, keys):
    made, other = create(), create(tenant="other")
    done = json.loads(dspyq("tenants", "forget", "acme", "--yes", "--json").stdout)
    assert done["revoked_keys"] == 1
    assert keys("show", made["id"])["status"] == "revoked"
    assert keys("show", other["id"])["status"] == "live"


def test_a_rotated_key_has_its_id_and_rights_and_another_secret(create, keys, redis_server):
    made = create("--rate", "20")
    rotated = keys("rotate", made["id"], "--grace", "1h")
    assert (rotated["id"], rotated["rate"]) == (made["id"], 20)
    assert rotated["key"] != made["key"]
    assert rotated["previous_secret_until"] is not None
    with redis_server.client() as client:
        record = client.hgetall(f"dspy:v1:key:{made['id']}")
    assert record["sha256"] == sha256_of(rotated["key"])
    assert record["previous_sha256"] == sha256_of(made["key"])


def test_an_edit_changes_what_is_stated_and_nothing_else(dspyq, create, keys):
    made = create("--rate", "20", "--expires", "90d", "--networks", "10.0.0.0/8", "--most-waiting", "7")
    changed = keys("edit", made["id"], "--rate", "50.5", "--variants", "control", "--name", "ci-2")
    assert (changed["rate"], changed["burst"], changed["name"]) == (50.5, 51, "ci-2")
    assert (changed["networks"], changed["most_waiting"]) == (["10.0.0.0/8"], 7)
    assert changed["expires_at"] == made["expires_at"]
    assert "variant" in changed["can"]
    loosened = keys("edit", made["id"], "--rate", "none", "--expires", "never", "--networks", "none")
    assert (loosened["rate"], loosened["expires_at"], loosened["networks"]) == (None, None, [])
    assert "state what to change" in fault(dspyq("keys", "edit", made["id"], ok=False))


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--programs", "qaa", "there is no program 'qaa' (did you mean qa?)"),
        ("--variants", "controll", "there is no variant 'controll' (did you mean control?)"),
        ("--can", "predict,everything", "--can: "),
        ("--rate", "0", "--rate: "),
        ("--burst", "many", "--burst: "),
        ("--networks", "10.0.0.0/99", "--networks: "),
        ("--origins", "*", "--origins: write each origin out"),
        ("--expires", "soon", "--expires: state a number of days, hours or minutes"),
        ("--expires", "2020-01-01", "--expires: 2020-01-01 has passed"),
        ("--daily", "much", "--daily"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(option, value, line, dspyq, keys):
    done = dspyq("keys", "create", "--tenant", "acme", "--name", "ci", "--json", option, value, ok=False)
    assert line in fault(done)
    assert keys("list") == []


def test_the_log_has_each_change_of_a_key(create, keys):
    made, other = create(), create(name="other")
    keys("edit", made["id"], "--rate", "5")
    keys("rotate", made["id"], "--grace", "0m")
    keys("revoke", other["id"])
    assert [(each["what"], each["name"]) for each in keys("log")] == [
        ("create", "ci"), ("create", "other"), ("edit", "ci"), ("rotate", "ci"), ("revoke", "other"),
    ]  # fmt: skip
    changes = keys("log", "--key", made["id"])
    assert [each["detail"] for each in changes] == ["", "rate=5", "grace=0s"]
    assert all("@" in each["who"] and each["at"].endswith("Z") for each in changes)


def test_the_tables_show_no_secret(dspyq, create):
    made = create("--rate", "20", "--expires", "2030-01-31")
    shown = "".join(
        dspyq("keys", *command, env={"COLUMNS": "160"}).stdout
        for command in (["list"], ["show", made["id"]], ["log"], ["edit", made["id"], "--rate", "7"])
    )
    assert made["id"] in shown
    assert "2030-01-31" in shown
    assert made["key"].rpartition("_")[2][:8] not in shown
    assert sha256_of(made["key"]) not in shown


def test_the_hash_of_a_key_comes_from_standard_input():
    key = make_key().text
    done = CliRunner().invoke(app, ["keys", "hash"], input=f"{key}\n")
    assert done.stdout == f"{sha256_of(key)}\n"
    refused = CliRunner().invoke(app, ["keys", "hash"], input=key[:-1])
    assert isinstance(refused.exception, InvalidOption)
    assert "holds no key" in str(refused.exception)
    assert key[20:-1] not in str(refused.exception)


def test_a_key_for_the_file_is_kept_nowhere_and_its_table_is_read_as_it_is(create, keys, settings_file, configure):
    made = create("--for-file", "--programs", "qa", "--rate", "20", "--expires", "2030-01-31", "--can", "predict")
    assert keys("list") == []
    written = configure(settings_file({"serve": tomllib.loads(made["table"])["serve"]})).serve.keys["ci"]
    assert written.sha256 == sha256_of(made["key"])
    assert (written.tenant, written.programs, written.rate, written.can) == ("acme", ("qa",), 20, ("predict",))
    assert written.expires_at.isoformat() == "2030-01-31T00:00:00+00:00"


def test_a_key_pasted_in_place_of_its_hash_is_not_shown(dspyq, settings_file):
    key = make_key().text
    path = settings_file({"serve": {"keys": {"ci": {"sha256": key, "tenant": "acme"}}}})
    line = fault(dspyq("keys", "list", settings=path, ok=False))
    assert "serve.keys.ci.sha256" in line
    assert key[20:40] not in line


def test_a_list_without_a_key_names_the_command_that_makes_one(dspyq):
    assert "dspyq keys create" in dspyq("keys", "list").stdout
