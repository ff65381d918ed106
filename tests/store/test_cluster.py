"""One slot of a real cluster as an address: clients go on over moves of the slot, failovers and deaths of its node."""

import itertools
import threading
import time

import pytest
import redis
from redis.crc import key_slot

from dspyq.core.redis_address import parse_address, url_of_spine
from dspyq.core.slots import slot_of
from dspyq.errors import RedisUnavailable
from dspyq.store.clients import connect, redis_errors
from dspyq.store.cluster import slot_keys
from dspyq.store.script_text import Argument, Arguments
from dspyq.store.scripts import Script, command_step, run_together
from tests.support.cluster import RedisCluster
from tests.support.processes import wait_until

#: How long a client waits for a failover; on a busy machine too.
SECONDS = 60.0


@pytest.fixture
def slot_url(redis_cluster):
    """The address of one spine."""
    return url_of_spine(redis_cluster.url, "7")


@pytest.fixture
def client(slot_url):
    """A client of that spine."""
    with connect(slot_url, timeout_seconds=SECONDS) as made:
        yield made


@pytest.fixture
def tag(slot_url):
    """The start of its keys."""
    return parse_address(slot_url).tag


@pytest.fixture
def slot(tag):
    """Its slot."""
    return slot_of(tag)


def other_master(cluster, slot):
    owner = cluster.owner(slot)
    return next(node for node in cluster.masters() if node is not owner)


def move_at_once(cluster, slot):
    cluster.migrate(slot, other_master(cluster, slot))


def move_key_by_key(cluster, slot):
    with cluster.migrating(slot, other_master(cluster, slot)):
        time.sleep(0.2)  # for requests to meet it; more of them harm nothing


def fail_over(cluster, slot):
    cluster.fail_over(cluster.owner(slot))


def kill(cluster, slot):
    cluster.kill_master(cluster.owner(slot))


#: Cases of tests beside one that meets every change; a cluster takes long to notice a death.
MOST_CHANGES = [move_at_once, move_key_by_key, fail_over, pytest.param(kill, marks=pytest.mark.long)]


class Traffic:
    """Threads that use a client until the block ends: by commands, pipelines, scripts and steps.

    Attributes:
        errors: What they were refused.
        counts: How many calls each made.
    """

    def __init__(self, client, tag):
        self.errors = []
        text = f"return redis.call('SADD', '{tag}members', ARGV[1])"
        script = Script(client, text, Arguments((Argument("member"),)), is_given_keys=False)
        kinds = {
            "command": lambda number: client.sadd(f"{tag}members", f"command {number}"),
            "pipeline": lambda number: client.pipeline().sadd(f"{tag}members", f"pipeline {number}").execute(),
            "script": lambda number: script(member=f"script {number}"),
            "step": lambda number: run_together(
                client, [command_step(int, "SADD", f"{tag}members", f"step {number}"), command_step(bytes, "PING")]
            ),
        }
        self.counts = dict.fromkeys(kinds, 0)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each) for each in kinds.items() for _ in range(2)]

    def _run(self, kind, call):
        for number in itertools.count():
            if self._stopped.is_set():
                return
            try:
                call(f"{threading.get_ident()} {number}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                self.errors.append((kind, error))
            self.counts[kind] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self):
        """Wait until each kind of call was made some more times."""
        before = dict(self.counts)
        wait_until(lambda: all(self.counts[kind] > before[kind] + 10 for kind in before), 3 * SECONDS, "more calls")


@pytest.mark.parametrize("change", [move_at_once, move_key_by_key, fail_over, kill])
def test_commands_pipelines_and_scripts_go_on_without_an_error(redis_cluster, client, tag, slot, change):
    with Traffic(client, tag) as traffic:
        traffic.wait_for_more()
        change(redis_cluster, slot)
        traffic.wait_for_more()
    assert traffic.errors == []
    if change is not kill:  # what a master has not passed on to its replica dies with it
        assert client.scard(f"{tag}members") == sum(traffic.counts.values())


@pytest.mark.parametrize("change", MOST_CHANGES)
def test_a_wait_for_an_item_ends_with_the_item_wherever_it_comes(redis_cluster, client, tag, slot, change):
    popped = []
    thread = threading.Thread(target=lambda: popped.append(client.brpop(f"{tag}list", timeout=SECONDS / 2)))
    thread.start()
    owner = redis_cluster.owner(slot)
    wait_until(lambda: int(owner.client.info("clients")["blocked_clients"]) == 1, SECONDS, "a blocked client")
    change(redis_cluster, slot)
    client.lpush(f"{tag}list", "item")
    thread.join()
    assert list(map(list, popped)) == [[f"{tag}list".encode(), b"item"]]


@pytest.mark.parametrize("change", MOST_CHANGES)
def test_a_subscription_follows_the_slot(redis_cluster, client, tag, slot, change):
    with client.pubsub() as channel:
        channel.subscribe(f"{tag}channel")
        assert channel.get_message(timeout=SECONDS)["type"] == "subscribe"
        client.publish(f"{tag}channel", "before")
        assert channel.get_message(timeout=SECONDS)["data"] == b"before"
        change(redis_cluster, slot)

        def message():
            client.pipeline(transaction=False).publish(f"{tag}channel", "after").execute()
            found = channel.get_message(timeout=0.1)
            return found and (found["type"], found["data"]) == ("message", b"after")

        wait_until(message, SECONDS, "a message after the change")
        channel.unsubscribe(f"{tag}channel")
        wait_until(
            lambda: (found := channel.get_message(timeout=0.1)) and found["type"] == "unsubscribe", SECONDS, "the end"
        )


def test_a_script_without_keys_is_sent_elsewhere_before_it_runs(redis_cluster, client, tag, slot):
    script = Script(client, f"return redis.call('INCR', '{tag}number')", is_given_keys=False)
    assert script() == 1
    other = other_master(redis_cluster, slot)
    with pytest.raises(redis.exceptions.MovedError):
        other.client.execute_command("EVAL", script.script, 1, *slot_keys(client))
    with pytest.raises(redis.ResponseError, match="non local key"):
        other.client.execute_command("EVAL", script.script, 0)
    assert script() == 2


@pytest.mark.journey
def test_an_owner_that_freezes_is_replaced_within_the_time_of_connecting(redis_cluster, slot_url, tag, slot):
    owner = redis_cluster.owner(slot)
    with connect(slot_url, timeout_seconds=SECONDS) as fresh:
        owner.process.stop()
        assert fresh.get(f"{tag}nothing") is None
    redis_cluster.heal()


def test_a_cluster_without_a_node_that_answers_is_an_error_of_one_line_that_names_the_setting(redis_cluster):
    url = url_of_spine(f"cluster://127.0.0.1:{redis_cluster.nodes[0].bus_port}/64", "7")
    with (
        connect(url, timeout_seconds=1.5) as lost,
        pytest.raises(RedisUnavailable, match="DSPYQ_REDIS_URL") as refused,
        redis_errors("look"),
    ):
        lost.get("{7}nothing")
    assert "\n" not in str(refused.value)


def test_a_cluster_with_a_password_is_joined_with_it_and_refused_without_it_at_once():
    with RedisCluster(masters=1, has_replicas=False, password="p@ss") as guarded:
        url = url_of_spine(guarded.url_of(1), "0")
        with connect(url) as client:
            assert client.set("{0-0}x", "1")
        with connect(url.replace("p%40ss", "wrong")) as client, pytest.raises(redis.AuthenticationError):
            client.get("{0-0}x")


def test_a_key_of_another_slot_is_an_error_and_no_move(redis_cluster, client, tag, slot):
    owner, names = redis_cluster.owner(slot), [f"k{number}" for number in range(100)]
    other = next(name for name in names if redis_cluster.owner(key_slot(name.encode())) is not owner)
    with pytest.raises(redis.exceptions.MovedError):
        client.get(other)
    assert client.get(f"{tag}nothing") is None
