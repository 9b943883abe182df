"""The house rules that a program can check: import order, the torch line, sizes, docstrings, late imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from submillion.cli import COMMANDS, loaded
from tests.kit.pages import make_run

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "submillion"
# The rooms of the package in their order, as the page of the architecture has them: a room imports only what stands
# before it, and torch is imported after "—" only.
ORDER = re.findall(
    r"^\| (?:`(\w+)`|(—)) \|", (ROOT / "docs" / "architecture.md").read_text().split("## The packed")[0], re.M
)
ROOMS = [room or line for room, line in ORDER]
TORCH_LINE = ROOMS.index("—")
HEAVY = {"torch", "transformers", "peft", "accelerate"}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core", "base"}
TREES = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def room_of(file: Path) -> str | None:
    """The room that a file belongs to; None for the package's own __init__."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported name as a dotted path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(tree: ast.AST) -> set[str]:
    """The rooms that a file imports."""
    paths = (name.split(".") for name in imports(tree))
    return {parts[1] for parts in paths if parts[0] == "submillion" and len(parts) > 1} & set(ROOMS)


def of_package(package: Path) -> dict[str, set[str]]:
    """Each module of a package with those of it that it imports by name."""
    files = {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    files = {name.removesuffix(".__init__"): file for name, file in files.items()}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for module, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = {f"{node.module}.{alias.name}" for alias in node.names}
                # A name that is no module is one of the module's own.
                graph[module] |= (targets & set(files)) or ({node.module} & set(files))
        graph[module].discard(module)
    return graph


def test_every_file_is_in_a_room_and_imports_only_rooms_above() -> None:
    astray = [file for file in TREES if room_of(file) not in (None, *ROOMS)]
    assert not astray, f"give them a room of docs/architecture.md: {astray}"
    later = {
        (str(file.relative_to(PACKAGE)), room)
        for file, tree in TREES.items()
        if (own := room_of(file)) is not None
        for room in rooms_imported(tree)
        if ROOMS.index(room) > ROOMS.index(own)
    }
    assert not later


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not {file for file in TREES if FORBIDDEN_NAMES & set(file.with_suffix("").relative_to(PACKAGE).parts)}


@pytest.mark.parametrize("package", ["submillion", "benchmarks"])
def test_files_import_each_other_in_no_circle(package: str) -> None:
    try:
        list(TopologicalSorter(of_package(ROOT / package)).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of files: {error.args[1]}")


def test_torch_is_imported_below_the_line_only() -> None:
    """But where an encoder that no table describes is built to be counted; inside functions, when there is one."""
    built = PACKAGE / "planning" / "architectures" / "built.py"
    at_import = ast.Module([node for node in TREES[built].body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    assert not {name for name in imports(at_import) if name.split(".")[0] in HEAVY}
    above = {file: tree for file, tree in TREES.items() if room_of(file) in (None, "cli", *ROOMS[:TORCH_LINE])}
    assert not {
        (str(file.relative_to(PACKAGE)), name)
        for file, tree in above.items()
        for name in imports(tree)
        if file != built and name.split(".")[0] in HEAVY
    }


def test_the_command_line_loads_a_command_when_it_is_called() -> None:
    above = set(ROOMS[:TORCH_LINE]) | {"cli"}
    for file, tree in TREES.items():
        at_import = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        if file == PACKAGE / "cli" / "__init__.py":
            assert rooms_imported(tree) <= {"cli", "errors", "text"}, "help imports no more than it prints"
        elif room_of(file) == "cli":
            late = set(imports(tree)) - set(imports(ast.Module(list(at_import), [])))
            light = {name for name in late if name.startswith("submillion.") and name.split(".")[1] in above}
            assert not light, f"{file} imports at its top what does not import torch: {light}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_their_docstrings_say(name: str) -> None:
    assert loaded(name).help.partition("\n")[0] == COMMANDS[name][1]


def test_sizes() -> None:
    for file in (*TREES, *PACKAGE.rglob("*.[ch]")):
        n_lines = file.read_text().count("\n")
        assert n_lines <= 400, f"{file}: split it where the half has a second user or its own law in the tests"
    for file, tree in TREES.items():
        if file.name == "triton_kernels.py":  # kernels, as kernels.c: what they are given are pointers
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno + 1 <= 60, (file, node.name)
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                # A command's parameters are its options: typer reads them from the signature. Its call has them too.
                assert len(parameters) <= 7 or room_of(file) in ("cli", "api"), (file, node.name)


def test_module_docstrings() -> None:
    assert not [file for file, tree in TREES.items() if not ast.get_docstring(tree)], "a module opens with what it owns"


def test_no_test_file_imports_another() -> None:
    files = (ROOT / "tests").rglob("*.py")
    astray = {
        (str(file.relative_to(ROOT)), name)
        for file in files
        for name in imports(ast.parse(file.read_text()))
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert not astray, "what several test files use belongs to tests/kit/"


WISH = {"model": "roberta-base", "n_classes": 4, "budget": 10**6, "method": "lora", "sites": ["query"], "head": "full"}
WISH |= {"layers": None, "rank": None}
OVER = "plan --set model.name=roberta-base --set adapter.rank=40 --budget 1000"
# One process: what comes first is imported by nobody before it. Gets the commands, each with what it must not import.
LIGHT = """
import json, sys
commands, page = json.loads(sys.argv[1])

def without(step, names):
    assert not set(names) & set(sys.modules), (step, set(names) & set(sys.modules))

import submillion
without("the package", ["numpy", "torch", "pydantic"])
dir(submillion), submillion.Config, submillion.Run, submillion.Score, submillion.load_config
submillion.plan, submillion.progress, submillion.RunError, submillion.compare
from submillion import data
data.read_rows(["a"], data.DataConfig())
without("rows in memory", ["torch", "transformers", "pandas", "datasets"])

from submillion.cli import main
for words, code, names in commands:
    print(">>>", words, flush=True)
    try:
        main(words.split())
    except SystemExit as stop:
        assert (stop.code or 0) == code, (words, stop.code)
    without(words, names)

from starlette.testclient import TestClient
from submillion.serving import folders
from submillion.serving.app import create_app
both = f"runs={page['runs']}"
with TestClient(create_app(folders.opened(page["folder"])), base_url="http://localhost") as client:
    answers = [client.get(path) for path in ("/api/list", f"/compare?{both}", f"/curves.svg?{both}")]
    answers.append(client.post("/api/plan", json=page["wish"]))
assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
without("the page", commands[-1][2])
"""


def test_light_commands_do_not_import_torch(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, overrides=[f"adapter.layers=top:{n}"], hash8=f"0a1b2c3{n}") for n in (1, 2)]
    names = ("train", "runs", "compare", "report", "serve", "export", "shift", "sweep")
    plan = ["--help", "plan --help", "plan", "plan --json", "plan --models", *(f"{name} --help" for name in names)]
    slow = ["pandas", "sklearn", "matplotlib", "jinja2", "scipy.stats", "scipy.optimize"]
    commands = [(words, 0, [*HEAVY, *slow]) for words in plan]
    commands.insert(2, (OVER, 1, commands[0][2]))
    lasting = ["config", "recipes", "sweep", f"compare {runs[0].path} {runs[1].path}"]
    lasting += [f"report {runs[0].path}", f"report {runs[0].path} --json"]
    commands += [(words, 0, [*HEAVY, "matplotlib.pyplot"]) for words in lasting]
    page = {"folder": str(runs[0].path.parent), "runs": ",".join(run.name for run in runs), "wish": WISH}
    command = [sys.executable, "-c", LIGHT, json.dumps([commands, page])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = {words: text for words, _, text in (part.partition("\n") for part in done.stdout.split(">>> ")[1:])}
    assert [words for words, text in said.items() if not text.strip()] == [OVER], "a refusal is on stderr"
    assert "over the budget" in done.stderr
    assert json.loads(said[lasting[-1]])["scores"] == runs[0].read_json("scores.json")
