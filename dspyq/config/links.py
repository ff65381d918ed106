"""Links between the tables of a configuration, before it is validated: names, models of variants, files, batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dspyq.config.programs import DEFAULT_DSPY_VERSION
from dspyq.config.setting_faults import nearest_hint

_WEIGHT_TOLERANCE = 0.001


def locate_files_of_batches(document: dict[str, Any], folder: Path) -> None:
    """Resolve the files of batches beside the configuration file; they need not exist yet."""
    for name, batch in tables(document, "batches").items():
        files = {key: (folder / batch[key]).resolve() for key in ("input", "output") if isinstance(batch.get(key), str)}
        document["batches"][name] = batch | files


def locate_keys(document: dict[str, Any], folder: Path) -> None:
    """Resolve the file of keys beside the configuration file."""
    section = document.get("encryption")
    if isinstance(section, dict) and isinstance(section.get("keys_file"), str) and section["keys_file"]:
        document["encryption"] = section | {"keys_file": str((folder / section["keys_file"]).resolve())}


def locate_states(document: dict[str, Any], folder: Path) -> list[str]:
    """Resolve state files beside the configuration file and hash them into the document, variants' own too."""
    faults: list[str] = []
    for name, program in tables(document, "programs").items():
        faults += _locate_state(program, folder, f"programs.{name}.state")
        for variant_name, variant in tables(program, "variants").items():
            if variant.get("state") == "":
                variant |= {"state": None, "state_sha256": None}  # in place of its program's
            else:
                faults += _locate_state(variant, folder, f"programs.{name}.variants.{variant_name}.state")
    return faults


def _locate_state(table: dict[str, Any], folder: Path, setting: str) -> Iterator[str]:
    if not isinstance(table.get("state"), str):
        return
    path = (folder / table["state"]).resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        yield f"{setting}: cannot read {path}: {error.strerror}"
        return
    table |= {"state": path, "state_sha256": hashlib.sha256(content).hexdigest()}
    if fault := _state_fault(content):  # else its jobs would wait for a worker with this half
        yield f"{setting}: {path} {fault}"


def link_tables(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give each table its name and each variant its model's table; return the document and the links that fail."""
    faults: list[str] = []
    urls = [str(data.get(key, "")) for key in ("redis_url", "broker_url", "result_url", "money_url")]
    urls += [str(url) for key in ("redis_urls", "former_redis_urls") for url in data.get(key) or ()]
    if any(url.strip().lower().startswith("sentinel") for url in urls) and not data.get("sentinel_master"):
        faults.append("sentinel_master: missing: the name that the sentinels give to the master")
    models = {name: {**table, "name": name} for name, table in tables(data, "models").items()}
    linked = {**data}
    if models:
        linked["models"] = {**data["models"], **models}
    if programs := tables(data, "programs"):
        linked["programs"] = {**data["programs"]}
    for name, program in programs.items():
        variants = {}
        for variant_name, variant in tables(program, "variants").items():
            model_name = variant.get("model")
            if isinstance(model_name, str) and model_name not in models:
                faults.append(
                    f"programs.{name}.variants.{variant_name}.model: there is no [models.{model_name}] table"
                    f"{nearest_hint(model_name, models)}"
                )
            derived = {"name": variant_name, "queue": f"{name}.{variant_name}"}
            variants[variant_name] = {**variant, **derived, "model": models.get(str(model_name), model_name)}
        derived = {"name": name, "dspy_version": str(data.get("dspy_version", DEFAULT_DSPY_VERSION))}
        linked["programs"][name] = {"salt": name, **program, **derived}
        if isinstance(own := program.get("models"), dict):
            linked["programs"][name]["models"] = {
                path: models.get(table, table) if isinstance(table, str) else table for path, table in own.items()
            }
            faults.extend(
                f"programs.{name}.models.{path}: name a [models] table; there is no [models.{table}]"
                f"{nearest_hint(str(table), models)}"
                for path, table in own.items()
                if not isinstance(table, str) or table not in models
            )
        faults.extend(_judges_without_a_model(name, program, models))
        if variants:
            linked["programs"][name]["variants"] = {**program["variants"], **variants}
            faults.extend(_weights_that_do_not_sum_to_one(name, variants))
    faults.extend(_dspy_versions_of_their_own(programs))
    if batches := tables(data, "batches"):
        timezone = data["budget"].get("timezone", "UTC") if isinstance(data.get("budget"), dict) else "UTC"
        linked["batches"] = data["batches"] | {
            name: {"timezone": timezone, **batch, "name": name} for name, batch in batches.items()
        }
        faults.extend(_batches_that_lead_nowhere(batches, programs))
    return linked, faults


def _judges_without_a_model(name: str, program: dict[str, Any], models: Collection[str]) -> Iterator[str]:
    experiment = program.get("experiment")
    judge = experiment.get("judge") if isinstance(experiment, dict) else None
    model = judge.get("model") if isinstance(judge, dict) else None
    if isinstance(model, str) and model not in models:
        yield (
            f"programs.{name}.experiment.judge.model: there is no [models.{model}] table{nearest_hint(model, models)}"
        )


def _dspy_versions_of_their_own(programs: dict[str, dict[str, Any]]) -> list[str]:
    own = [name for name, program in programs.items() if "dspy_version" in program]
    return [f"programs.{name}.dspy_version: all programs have one: state it above the tables" for name in own]


def _batches_that_lead_nowhere(
    batches: dict[str, dict[str, Any]], programs: dict[str, dict[str, Any]]
) -> Iterator[str]:
    outputs: dict[str, str] = {}
    for name, batch in batches.items():
        program = batch.get("program", next(iter(programs)) if len(programs) == 1 else None)
        if program is None:
            yield f"batches.{name}.program: missing: there are several ({', '.join(programs) or 'none at all'})"
        elif program not in programs:
            hint = nearest_hint(str(program), programs)
            yield f"batches.{name}.program: there is no [programs.{program}] table{hint}"
        elif (variant := batch.get("variant")) is not None:
            variants = tables(programs[program], "variants")
            if variant not in variants:
                hint = nearest_hint(str(variant), variants)
                yield f"batches.{name}.variant: {program} has no variant {variant!r}{hint}"
        other = outputs.setdefault(str(batch.get("output", name)), name)
        if other != name:
            yield f"batches.{name}.output: the same as that of [batches.{other}]"


def _weights_that_do_not_sum_to_one(program: str, variants: dict[str, dict[str, Any]]) -> Iterator[str]:
    try:
        weights = {name: float(variant.get("weight", 1.0)) for name, variant in variants.items()}
    except (TypeError, ValueError):
        return  # validation reports a weight that is no number
    total = sum(weights.values())
    if not abs(total - 1) <= _WEIGHT_TOLERANCE:
        stated = ", ".join(f"{name} = {weight:g}" for name, weight in weights.items())
        yield f"programs.{program}.variants: the weights sum to {total:g}, not 1 ({stated})"


def _state_fault(state: bytes) -> str | None:
    try:
        if isinstance(json.loads(state), dict):
            return None
    except (ValueError, RecursionError):
        return "is not whole JSON, as program.save writes it; while it is written, use another name, then rename it"
    return "holds no state, as program.save writes it; name the file that it wrote"


def tables(holder: Any, key: str) -> dict[str, dict[str, Any]]:
    """Return the named tables under a key; validation reports values that are no tables."""
    tables = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(tables, dict):
        return {}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}
