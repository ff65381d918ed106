"""The built wheel in projects with packages of their own, each in an environment of its own."""

import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, free_port, wait_until
from tests.wheels.conftest import PROJECTS, build, run

pytestmark = pytest.mark.installed

WORKER = ("-A", "dspyq", "worker", "-l", "INFO", "--without-mingle")


def test_the_wheel_holds_dspyq_alone_and_every_file_of_it(wheel):
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    top = {name.parts[0] for name in names}
    assert top == {"dspyq", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    source = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "dspyq").rglob("*") if path.is_file()}
    assert {name for name in names if name.parts[0] == "dspyq"} == {
        path for path in source if "__pycache__" not in path.parts
    }


def test_a_django_project_with_its_own_config_and_celery_predicts_in_views_and_in_its_own_task(install):
    project, running = install("django")
    running.enter_context(project.start(*WORKER, ready_line=" ready."))
    own = ("-A", "config.celery_app", "worker", "-l", "INFO", "-c", "1", "--without-mingle")
    running.enter_context(project.start(*own, ready_line=" ready."))
    assert project.run("ask.py")["answers"] == ["echo:answer", "echo:answer-async", "echo:sum"]


def test_a_fastapi_project_gets_answers(install):
    project, running = install("fastapi")
    assert run(project.python.with_name("dspyq"), "version") == f"dspyq {project.version}\n"
    running.enter_context(project.start(*WORKER, ready_line=" ready."))
    found = project.run("ask.py")
    assert found["answers"] == ["echo:a", "echo:b"]
    assert found["refused"] == 422


def test_a_project_keeps_its_own_workers_producer_and_config_beside_dspyq_and_after_it(install, tmp_path):
    project, running = install("own_names", {"programs": {"qa": {"class": "workers.programs:Shout"}}})
    project.install(build(project.folder, tmp_path / "acme"))
    running.enter_context(project.start(*WORKER, ready_line=" ready."))
    found = project.run("-m", "producer")
    assert found["answers"] == ["acme's configuration: echo:Whose names are these?"]
    assert found["names"] == ["acme's configuration", "acme"]
    running.close()
    project.uninstall("dspyq")
    assert not (project.site / "dspyq").exists()
    for path in ("config.py", "producer.py", "workers/__init__.py", "workers/celery.py", "workers/programs.py"):
        assert (project.site / path).read_bytes() == (PROJECTS / "own_names" / path).read_bytes()


def test_flower_and_beat_start_from_the_wheel(install):
    nightly = {"program": "qa", "input": "in.jsonl", "output": "out-{date}.jsonl", "schedule": "0 1 * * *"}
    project, running = install("fastapi", {"batches": {"nightly": nightly}})
    port = free_port()
    flower = ("-A", "dspyq", "flower", f"--port={port}", "--address=127.0.0.1")
    running.enter_context(project.start(*flower, ready_line="Broker: "))
    wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"), 30, "Flower")
    beat = running.enter_context(project.start("-A", "dspyq", "beat", "-l", "INFO", ready_line="beat: Starting"))
    assert beat.is_running


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310 - loopback
            return reply.status == 200
    except OSError:
        return False
