"""``dspyq init``: each template's project passes its own tests, and its demo shows its program answering."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import redis
import yaml
from packaging.requirements import Requirement

from dspyq.config.settings import load_settings
from tests.support.deployment import USERS, tool
from tests.support.nursery import run_fork
from tests.support.redis_users import load_file

TEMPLATES = ("plain", "fastapi", "django")
#: None of pip's, so that the embedded model cannot be fetched.
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}


def environment():
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DSPYQ_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": path, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(*command, folder, **variables):
    env = environment() | variables
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def init(nursery, tmp_path_factory):
    del nursery
    outputs = tmp_path_factory.mktemp("outputs")

    def start(folder, *arguments):
        return run_fork("dspyq", ["init", *arguments], env=environment(), folder=outputs, directory=folder)

    return start


@pytest.fixture(scope="module", params=TEMPLATES)
def project(request, init, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    done = init(folder, "My-Shop", "--template", request.param)
    assert done.stdout == "Wrote My-Shop. Next: cd My-Shop && make demo && make test\n", done.stderr
    return folder / "My-Shop"


def test_the_files_of_a_new_project_are_whole(project):
    assert load_settings(project / "dspyq.toml").programs.keys() == {"triage"}
    stated = tomllib.loads((project / "pyproject.toml").read_text())
    modules, packages = (stated["tool"]["setuptools"][name] for name in ("py-modules", "packages"))
    tops = {path.relative_to(project).parts[0].removesuffix(".py") for path in project.rglob("*.py")}
    assert tops - {"tests", "manage"} == {*modules, *packages}
    files = [path for path in project.rglob("*") if path.is_file()]
    assert not [path for path in files if "{{" in path.read_text()]
    assert {path.name for path in files} >= {".gitignore", "Makefile", "Procfile", "README.md", "compose.yaml"}
    style = run("ruff", "check", "--isolated", "--select", "E,F,W,B,UP", "--line-length", "120", ".", folder=project)
    assert style.returncode == 0, style.stdout


def test_docker_reads_a_new_projects_compose_file(project):
    command = tool("docker-compose", "the dev extra")
    secrets = {f"REDIS_{user.upper()}_PASSWORD": f"for{user}" for user in USERS} | {"OPENAI_API_KEY": "akey"}
    done = run(command, "--env-file", "/dev/null", "config", "--services", folder=project, **secrets)
    assert {"redis", "worker"} <= set(done.stdout.split()), done.stderr
    assert "set it in .env" in run(command, "--env-file", "/dev/null", "config", folder=project).stderr


def test_each_part_of_a_new_project_has_a_user_of_redis_with_a_password_of_its_own(project, fresh_redis_server):
    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    script = services["redis"]["command"][2].replace("$$", "$")
    made = re.search(r"\$\((sed .*?)\)\n", script, re.DOTALL)[1].replace("/etc/dspyq/users.acl", "users.acl")
    passwords = {f"REDIS_{user.upper()}_PASSWORD": f"for{user}" for user in USERS}
    file = run("sh", "-c", made, folder=project, **passwords).stdout
    assert "change-me" not in file
    server = fresh_redis_server()
    load_file(server, file)
    parts = {name: part["environment"]["DSPYQ_REDIS_URL"] for name, part in services.items() if name != "redis"}
    users = {name: re.match(r"redis://(\w+):\$\{REDIS_(\w+)_PASSWORD", url).groups() for name, url in parts.items()}
    assert users["worker"] == ("worker", "WORKER")
    assert users["operator"] == ("operator", "OPERATOR")
    assert users.get("web", ("producer", "PRODUCER")) == ("producer", "PRODUCER")
    for user, _ in users.values():
        with redis.Redis(port=server.port, username=user, password=f"for{user}") as client:
            assert client.ping()
    assert [name for name, part in services.items() if "OPENAI_API_KEY" in part["environment"]] == ["worker"]


def test_the_images_of_a_new_project_can_seal(project):
    stated = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    assert Requirement(stated[0]).extras == {"encryption", "worker"}


@pytest.mark.installed
def test_a_new_project_passes_its_own_tests(project):  # the last of its tests: it writes into the folder
    done = run("make", "test", "PYTHON=python", folder=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert not (project / ".venv").exists()  # the active environment has everything


@pytest.mark.installed
def test_the_demo_of_a_new_project_shows_its_program_answering_without_a_network(init, tmp_path):
    init(tmp_path, "shop")
    done = run("make", "demo", "PYTHON=python", folder=tmp_path / "shop", XDG_CACHE_HOME=str(tmp_path), **OFFLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A stand-in answers instead" in done.stdout
    assert "low   Thank you for the nice lamp.\n" in done.stdout


@pytest.mark.installed
def test_a_command_that_fails_fails_the_demo_in_one_line(init, tmp_path):
    init(tmp_path, "shop")
    command = (sys.executable, "-m", "dspyq", "demo")
    variables = {"XDG_CACHE_HOME": str(tmp_path), **OFFLINE}
    done = run(*command, "python", "-c", "raise SystemExit(3)", folder=tmp_path / "shop", **variables)
    assert (done.returncode, done.stderr) == (1, "dspyq: python ended with status 3\n")
    done = run(*command, "--json", "python", "producer.py", folder=tmp_path / "shop")
    assert done.stderr.startswith("dspyq: options of the demo do not go with a command")


@pytest.mark.parametrize("name", ["9shop", "a shop", "läden"])
def test_a_name_that_no_package_can_have_is_refused(init, tmp_path, name):
    done = init(tmp_path, name)
    assert done.returncode == 1
    assert done.stderr.startswith("dspyq: ")
    assert "cannot name a project" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_refused_in_one_line_and_left_as_it_is(init, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    done = init(tmp_path, "shop")
    assert (done.returncode, done.stderr) == (1, "dspyq: shop is not empty; name a new folder\n")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["notes.txt"]
    (tmp_path / "shop" / "notes.txt").unlink()
    assert init(tmp_path, "shop").returncode == 0
