"""The structure of the code: floors, no circles, DSPy in one room, Lua in files of its own, one meaning a name."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dspyq.store.keys import KEY_KINDS
from dspyq.store.users import WRITERS_AND_READERS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dspyq"
#: Each room and the modules beside them may import what stands on a lower floor, and itself.
FLOORS = {
    "errors": 0,
    "core": 1,
    "config": 2,
    "sealing": 2,
    "store": 3,
    "tracing": 3,
    "processes": 3,
    "experiments": 4,
    "prediction": 5,
    "delivery": 5,
    "cache": 6,
    "streaming": 6,
    "guards": 7,
    "celery_app": 7,
    "api_keys": 9,
    "client": 8,
    "lane": 8,
    "programs": 8,
    "retention": 9,
    "batch": 9,
    "worker": 10,
    "testing": 10,
    "examples": 10,
    "pytest_plugin": 11,
    "celery": 11,
    "console": 11,
    "serve": 12,
    "stack": 12,
    "cli": 13,
    "__main__": 14,
}
#: Modules of experiments that are pure functions of plain values.
PURE_STATISTICS = (
    "burn_in", "effects", "guards", "jackknife", "mixture", "multiplicity", "normal", "planned", "planning",
    "sample_ratio", "sequential", "sums", "verdict",
)  # fmt: skip
#: Names in strings that point up, each with its reason.
NAMED_UPWARDS = {
    # Celery loads the scheduler by its name when beat starts; nothing else loads it.
    ("celery_app", "dspyq.worker.beat"),
    # A batch at night runs in a process of its own.
    ("worker", "dspyq.cli.batch.scheduled"),
}
#: The room that knows DSPy, and an adapter of the embedded model.
IMPORTS_DSPY = {"programs", "stack/embedded/short_prompt.py"}
#: What functions may keep for good: it depends on their arguments alone, or is one for the process and all its
#: configurations. Everything else that a process keeps is ``per_runtime``.
CACHED = {
    "config/codec.py _adapter", "config/codec.py _classes", "config/exact.py _adapter", "config/secrets.py _shapes",
    "config/signature.py parse_signature", "core/redis_address.py parse_address", "programs/dspy_memo.py _of_class",
    "programs/dspy_memo.py _find_fields", "programs/dspy_shortcuts.py _has_no_decision",
    "serve/callers.py _is_own_name", "serve/predictions/ids.py _packed", "serve/predictions/rendering.py _second",
    "core/slots.py tag_of", "store/keys.py _side", "store/script_text.py read_script_file",
    "cli/main.py whole_command",
    "config/secrets.py process_secrets",  # no line of a log may show those of any configuration
    "client/metrics.py register_metrics",  # Prometheus has one registry
}  # fmt: skip
#: A module of ours, as Celery, importlib or ``python -m`` name it.
MODULE_NAME = re.compile(r"dspyq(?:\.\w+)+(?=:|$)")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def imported(path):
    """The modules that a file imports, wherever in it; for ``from package import module`` both."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (name for alias in node.names if is_module(name := f"{node.module}.{alias.name}"))


def named(path):
    """Our modules that a file names in a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (name for name in MODULE_NAME.findall(node.value.split("\n")[0]) if is_module(name))


def rooms(names):
    return {name.split(".")[1] for name in names if name.startswith("dspyq.")}


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if path != PACKAGE / "__init__.py"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_point_to_lower_floors(path):
    own = room_of(path)
    above = {room for room in rooms(imported(path)) if room != own and FLOORS[room] >= FLOORS[own]}
    assert not above
    named_above = {name for name in named(path) if (room := name.split(".")[1]) != own and FLOORS[room] >= FLOORS[own]}
    assert not {name for name in named_above if (own, name) not in NAMED_UPWARDS}


def test_modules_import_each_other_in_no_circle():
    """Imports within functions count too: a circle of modules is read, and changed, as one."""
    homes = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    left = {name: set(imported(path)) & homes.keys() - {name} for name, path in homes.items()}
    while ends := {name for name, others in left.items() if not others}:
        left = {name: others - ends for name, others in left.items() if name not in ends}
    assert not left


def test_no_module_looks_a_task_up_by_its_name():
    """Such a look-up is an import that no drawing of imports shows."""
    assert not [path for path in modules() if re.search(r"\.tasks(\[|\.get\()", path.read_text())]


def cached(path):
    """The functions and classes of a file that a decorator of functools keeps the values of."""
    for node in ast.walk(ast.parse(path.read_text())):
        for decorator in getattr(node, "decorator_list", ()):
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if getattr(called, "attr", getattr(called, "id", None)) in {"cache", "lru_cache"}:
                yield f"{path.relative_to(PACKAGE)} {node.name}"


def test_what_a_process_keeps_belongs_to_a_runtime():
    """Or a second configuration in one process would get the values of the first, and a child those of its parent."""
    assert {name for path in modules() for name in cached(path)} == CACHED


def test_one_module_acts_after_a_fork():
    found = [path for path in modules() if "register_at_fork" in path.read_text()]
    assert found == [PACKAGE / "core" / "runtime.py"]


def test_every_room_has_a_floor():
    found = {room_of(path) for path in modules()} - {"__init__"}
    assert found == FLOORS.keys()


def test_dspy_is_imported_in_one_room():
    found = [path for path in modules() if any(name.split(".")[0] == "dspy" for name in imported(path))]
    assert not [path for path in found if not {room_of(path), str(path.relative_to(PACKAGE))} & IMPORTS_DSPY]


def test_breaker_rate_limit_and_budget_do_not_import_each_other():
    guards = {
        "breaker": {"breaker", "breaker_state"},
        "rate_limit": {"rate_limit", "provider_gate"},
        "budget": {"billing", "budget", "budget_errors", "settlements"},
    }
    for name, own in guards.items():
        others = {f"dspyq.guards.{module}" for other, theirs in guards.items() if other != name for module in theirs}
        for module in own:
            assert not others & set(imported(PACKAGE / "guards" / f"{module}.py")), module


def test_statistics_need_the_standard_library_and_a_hash():
    pure = (*PURE_STATISTICS, "placement")
    paths = [PACKAGE / "experiments" / f"{name}.py" for name in pure]
    own = {name for path in paths for name in imported(path) if name.split(".")[0] not in sys.stdlib_module_names}
    assert own - {f"dspyq.experiments.{name}" for name in pure} == {"blake3"}


def test_opentelemetry_is_imported_in_one_place():
    found = [path for path in modules() if any(name.split(".")[0] == "opentelemetry" for name in imported(path))]
    assert [str(path.relative_to(PACKAGE)) for path in found] == ["tracing/spans.py"]


def test_litellm_is_imported_nowhere():
    assert not [path for path in modules() if any(name.split(".")[0] == "litellm" for name in imported(path))]


def test_lua_lives_in_files_that_open_with_a_comment():
    scripts = sorted(PACKAGE.rglob("*.lua"))
    assert scripts
    for script in scripts:
        lines = script.read_text().splitlines()
        opening = lines[1] if lines[0].startswith("#!lua") else lines[0]
        assert opening.startswith("--"), script
    assert not [path for path in modules() if "redis.call(" in path.read_text()]


#: Where names of keys are built, and patterns of them for users of Redis.
NAMES_OF_KEYS = {PACKAGE / "store" / f"{name}.py" for name in ("keys", "key_bases", "users")}


def test_names_of_keys_are_built_in_one_place():
    literal = re.compile(r"""^["']?(?:dspy:v\d|celery-task-meta)""")
    for path in modules():
        constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        found = [each for each in constants if isinstance(each, str) and literal.match(each)]
        assert not found or path in NAMES_OF_KEYS, (path, found)
    for script in PACKAGE.rglob("*.lua"):
        code = [line.partition("--")[0] for line in script.read_text().splitlines()]
        assert not [line for line in code if "dspy:v" in line or re.search(r"local (PREFIX|BASE)\b", line)], script


def test_importing_predict_reads_no_configuration_and_loads_no_dspy():
    code = (
        "import sys; from dspyq import predict; import dspyq.config.settings;"
        "unwanted = {'dspy', 'litellm', 'flower', 'tornado', 'numpy', 'prometheus_client', 'structlog'};"
        "unwanted |= {'dspyq.tracing.spans', 'pydantic_settings', 'dspyq.config.schema', 'dspyq.config.programs'};"
        "assert not unwanted & sys.modules.keys();"
        "from dspyq.core.runtime import current; assert current().peek(dspyq.config.settings.get_settings) is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"DSPYQ_CONFIG": "/nowhere.toml"}, cwd=ROOT)


def names_of_types(path):
    """The classes and type aliases that a module defines; a type variable has no meaning of its own."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not re.search(
            r"(TypeVar|ParamSpec)\(", ast.unparse(node)
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id.lstrip("_") for target in targets if isinstance(target, ast.Name)]
            yield from (name for name in names if re.match(r"[A-Z]+[a-z]", name))


def test_no_comprehension_keeps_a_spine_active_while_its_error_is_handled():
    loops = ("each_spine(", "by_spine(", "by_owners(", "on_each(", "process_served_spines().each(")
    kinds = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    found = [
        f"{path}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
        for each in node.generators
        if ast.unparse(each.iter).startswith(loops)
    ]
    assert not found, "use on_each_spine(…), or a loop"


def test_a_run_leaves_its_state_on_no_attribute_of_celerys_request():
    """mypy does not see those; ``dspyq/delivery/task_run.py`` has the typed ones."""
    for path in modules():
        tree = ast.parse(path.read_text())
        assigned = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
        owners = [ast.unparse(target.value) for target in assigned if isinstance(target, ast.Attribute)]
        assert not [each for each in owners if re.search(r"^(request|context)$|\.request$", each)], path
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not texts & {"run_count", "is_given_up", "claim_seen_at"}, path


def test_a_type_has_a_name_of_its_own():
    """Two classes of one name make a reader look up which is meant."""
    homes = {}
    for path in modules():
        for name in names_of_types(path):
            homes.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_module_outgrows_one_job():
    for path in modules():
        assert len(path.read_text().splitlines()) <= 400, path


def test_every_kind_of_key_has_its_users_of_redis():
    missing = {kind.name for kind in KEY_KINDS} - WRITERS_AND_READERS.keys()
    assert not missing, "state who writes and reads it in dspyq/store/users.py, then: python deploy/redis/users.py"
