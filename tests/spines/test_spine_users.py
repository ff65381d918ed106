"""Three Redis servers and one of money with the same file of users, as ``dspyq users`` prints it."""

import json

import pytest

from tests.support.redis_users import PREFIX, load_file, refusals, url_of

pytestmark = pytest.mark.journey

QUESTIONS = [f"question {number}" for number in range(40)]  # so many that each spine has some
COMMANDS = {
    "operator": (["queues", "list"], ["spines"], ["tenants", "limit", "acme", "--daily", "5"], ["dead", "list"]),
    "watcher": (["spines"], ["variants"], ["costs"], ["budget", "show"], ["batch", "list"]),
}


@pytest.fixture
def env_of(spines, spine_command):
    """Return the variables of a process that is a user at all servers."""
    text = spine_command("users", env={"DSPYQ_KEY_PREFIX": PREFIX}).stdout
    servers = [*spines.servers, spines.money]
    for server in servers:
        load_file(server, text)
        server.cli("ACL", "LOG", "RESET")

    def env(user):
        return {
            "DSPYQ_KEY_PREFIX": PREFIX,
            "DSPYQ_REDIS_URLS": json.dumps([url_of(server, user) for server in spines.servers]),
            "DSPYQ_MONEY_URL": url_of(spines.money, user),
        }

    yield env
    for server in servers:
        server.cli("ACL", "DELUSER", "worker", "producer", "batch", "door", "watcher", "operator")


def test_a_deployment_over_three_servers_and_money_runs_with_the_rights_of_its_users(
    spines, spine_worker, spine_producer, spine_command, env_of, tmp_path
):
    def ask(questions):
        from dspyq import predict

        handles = predict.many([{"question": each} for each in questions])
        return [handle.get(timeout=60).answer for handle in handles]

    for waits in (False, True):  # two of the three servers each, which they agree on in the Redis of money
        spine_worker(env=env_of("worker") | {"DSPYQ_WORKERS__SPINES": "2"}, waits=waits)
    told = spine_producer(ask, env=env_of("producer"), questions=QUESTIONS).result(90)
    assert told == [f"echo:{each}" for each in QUESTIONS]
    assert all(spines.keys(f"{PREFIX}dspy:v1:prediction:*"))
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"question": f"row {number}"}) + "\n" for number in range(6)))
    spine_command("batch", "run", str(rows), "--program", "qa", "--output", str(out), env=env_of("batch"))
    assert len(out.read_text().splitlines()) == 6
    for user, commands in COMMANDS.items():
        for command in commands:
            spine_command(*command, env=env_of(user))
    assert spines.money.keys(f"{PREFIX}dspy:v1:spines-*")
    assert [refusals(server) for server in (*spines.servers, spines.money)] == [[], [], [], []]
