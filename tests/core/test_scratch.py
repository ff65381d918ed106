"""Temporary folders that do not outlive their processes for long."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dspyq.core.scratch import scratch_folder

HOLD = """
from dspyq.core.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "input").write_text("rows")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def another_process() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a scratch folder until it is ended."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_killed_process_s_folder_is_removed_by_the_next_and_a_living_one_s_is_not() -> None:
    with ExitStack() as running:
        (_, living), (killed_process, killed) = (running.enter_context(another_process()) for _ in range(2))
        killed_process.kill()
        killed_process.wait()
        assert (killed / "input").exists()
        with scratch_folder() as own:
            assert own.is_dir()
            assert not killed.exists()
            assert (living / "input").read_text() == "rows"


def test_a_folder_that_is_kept_after_an_error_ends_with_the_next_of_its_name(folder: Path) -> None:
    def fail() -> None:
        with scratch_folder("demo", kept_after=(ZeroDivisionError,)) as own:
            (own / "log").write_text("why")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with scratch_folder():
        assert [path.read_text() for path in folder.glob("dspyq-demo-*/log")] == ["why"]
    with scratch_folder("demo"):
        assert not list(folder.glob("dspyq-demo-*/log"))
    assert not list(folder.iterdir())


def test_a_folder_ends_with_its_block_whatever_is_in_it(folder: Path) -> None:
    def fail() -> None:
        with scratch_folder() as own:
            (own / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(folder.iterdir())


def test_folders_of_other_names_and_links_are_left_alone(folder: Path) -> None:
    (folder / "dspyq-demo-1").mkdir()
    (folder / "kept").mkdir()
    (folder / "dspyq-scratch-link").symlink_to(folder / "kept")
    with scratch_folder():
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["dspyq-demo-1", "dspyq-scratch-link", "kept"]
