"""Options of ``dspyq worker``: ours, and those that are Celery's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dspyq.errors import ConfigurationError
from dspyq.processes import options
from dspyq.processes.options import available_cores, parse_options


def test_what_is_not_ours_is_passed_on_in_its_order() -> None:
    found = parse_options(["-Q", "a,b", "--processes", "3", "--loglevel=DEBUG", "--threads=5", "-E", "-f", "%n.log"])
    assert (found.processes, found.threads) == (3, 5)
    assert found.passed_on == ("-Q", "a,b", "--loglevel=DEBUG", "-E", "-f", "%n.log")
    assert found.command(2, "python")[1:] == [
        *("-P", "-m", "celery", "-A", "dspyq", "worker", "-n", "worker-2@%h", "-c", "5"),
        *found.passed_on,
    ]


@pytest.mark.parametrize("arguments", [["-n", "shop@east"], ["-nshop@east"], ["--hostname=shop@east"]])
def test_workers_have_names_apart(arguments: list[str]) -> None:
    found = parse_options([*arguments, "--processes=2"])
    assert [found.name(number) for number in (1, 2)] == ["shop-1", "shop-2"]
    assert "shop-2@east" in found.command(2, "python")


@pytest.mark.parametrize("arguments", [["-A", "workers"], ["-Aworkers"], ["--app", "workers"], ["--app=workers"]])
def test_the_application_is_celerys(arguments: list[str]) -> None:
    assert parse_options(arguments).command(1, "python")[4:7] == ["-A", "workers", "worker"]


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", "", "²"])
@pytest.mark.parametrize("option", ["--processes", "--threads"])
def test_a_number_that_is_none_is_one_line_that_names_it(option: str, number: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option}: .* is not a number of 1 or more$"):
        parse_options([f"{option}={number}"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--processes"], "--processes: a value"),
        (["-D"], "foreground"),
        (["--threads=2", "-c", "3"], "-c: .* --threads"),
    ],
)
def test_what_cannot_work_is_one_line(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        parse_options(arguments)


def test_by_default_there_is_a_worker_for_each_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(options, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(options, "_QUOTA_OF_VERSION_1", tmp_path / "none")
    assert parse_options([]).processes == available_cores() == 8
    for quota, cores in (("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)):
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
        assert available_cores() == cores, "a container's limit counts"
