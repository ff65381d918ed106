"""The packages that are installed: pinned with hashes in requirements.lock, and in the bill of materials of CI."""

import re
import subprocess
import sys

import pytest

from tests.support.processes import REPOSITORY

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(file):
    found = _PIN.findall((REPOSITORY / file).read_text())
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_every_pinned_package_has_hashes_of_the_same_version():
    assert pins("requirements.lock") == pins("constraints.txt"), "run: make lock"
    for entry in re.split(r"\n(?=\S)", (REPOSITORY / "requirements.lock").read_text()):
        if not entry.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("image", ["producer", "serve", "worker", "demo", "build"])
def test_the_lock_of_an_image_is_a_part_of_the_lock_of_all(image):
    whole, part = hashes("requirements.lock"), hashes(f"requirements/{image}.lock")
    assert part
    assert {name: found for name, found in whole.items() if name in part} == part, "run: make lock"


def hashes(file):
    """Each package of a lock, with its version and the hashes of its files."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (REPOSITORY / file).read_text()):
        if pin := _PIN.match(entry):
            found[pin[1]] = pin[2], frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
    return found


def test_images_install_by_hashes_alone():
    dockerfile = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"\bpip (?:--python \S+ )?(?:install|wheel) [^&\n]+", dockerfile)
    by_hashes = {re.search(r"-r requirements/(\w+)\.lock", each)[1] for each in installs if "--require-hashes" in each}
    assert by_hashes == {"producer", "serve", "worker", "demo", "build", "weights"}
    others = [each for each in installs if "--require-hashes" not in each]
    assert len(others) == 5
    assert all("--no-index" in each or "--no-build-isolation" in each for each in others)
    assert all("--no-deps" in each for each in installs)


def test_ci_makes_the_bill_of_materials_and_git_ignores_it():
    assert "make sbom" in (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert "sbom/" in (REPOSITORY / ".gitignore").read_text().splitlines()


@pytest.mark.installed
def test_pip_installs_by_these_hashes_and_refuses_a_file_with_another(tmp_path):
    lock = (REPOSITORY / "requirements.lock").read_text()
    entries = [each for each in re.split(r"\n(?=\S)", lock) if re.match(r"(vine|amqp|zipp)==", each)]
    assert len(entries) == 3
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("\n".join(entries) + "\n")
    bad.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, "\n".join(entries)) + "\n")
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--target"]

    def install(file, folder):
        options = [str(tmp_path / folder), "--no-cache-dir", "-r", str(file)]
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)

    done = install(good, "good")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "good" / "vine").is_dir()
    refused = install(bad, "bad")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
