"""The files of a batch are its user's alone, and what it kept of a stream goes with its end."""

import subprocess
import sys

import pytest

from tests.support.configuration import environment

ROWS = '{"question": "good"}\n{"question": "bad"}\n'


@pytest.fixture
def run(session_settings_file, redis_server, tmp_path, shared_worker):
    """Run ``dspyq batch`` as a user with the usual umask, with rows on standard input."""
    del shared_worker

    def run(*arguments, rows=None):
        return subprocess.run(
            [sys.executable, "-m", "dspyq", "batch", *arguments],
            input=rows,
            cwd=tmp_path,
            env=environment(session_settings_file, redis_server.url),
            umask=0o022,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_its_files_are_its_users_alone_and_a_kept_stream_goes_once_no_row_can_be_asked_again(run, endpoint, tmp_path):
    endpoint.script(status=400, containing="bad")
    done = run("run", "-", "--output", "out.jsonl", rows=ROWS)
    assert "1 failed" in done.stdout, done.stderr
    files = sorted(tmp_path.glob("out.jsonl*"))
    assert {path.name for path in files} >= {"out.jsonl"}
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o600"] * len(files)
    assert not (tmp_path / "out.jsonl.input").exists()  # status 400 lasts: there is nothing to ask again


def test_a_kept_stream_stays_while_failed_rows_of_it_may_be_asked_again(run, endpoint, tmp_path):
    endpoint.script(status=500)
    done = run("run", "-", "--output", "out.jsonl", rows='{"question": "unlucky"}\n')
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    kept = tmp_path / "out.jsonl.input"
    assert kept.exists()
    endpoint.clear()
    done = run("retry", "out.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not kept.exists()


def test_a_file_of_the_users_own_is_never_deleted(run, tmp_path):
    own = tmp_path / "out.jsonl.input"
    own.write_text('{"question": "mine"}\n')
    assert run("run", "out.jsonl.input", "--output", "out.jsonl").returncode == 0
    assert own.exists()
