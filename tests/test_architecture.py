"""The house rules that a program can check: import order, the torch line, sizes, docstrings, late imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "submillion"
# A module imports only what stands before it. None is the line below which torch may be imported.
ORDER = (
    *("errors", "hub", "config", "architectures", "budget", "planning", "cache", "data", "augmentation", "metrics"),
    *(
        "shift",
        "runs",
        "comparison",
        "reports",
        None,
        "processes",
        "backbone",
        "batching",
        "adapters",
        "packed",
        "prefix",
    ),
    *("classifier", "losses", "optimizers", "evaluation", "distillation", "checkpoints", "training", "tracking"),
    *("workers", "prediction", "robustness", "export", "workflow", "sweeps", "serving", "cli", "api"),
)
TORCH_LINE = ORDER.index(None)
HEAVY = {"torch", "transformers", "peft", "accelerate"}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core", "base"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str | None:
    """The module of the order that a file belongs to; None for the package's own __init__."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every imported name as a dotted path, with the statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def own_imports(tree: ast.AST) -> set[str]:
    """The submillion modules that a file imports."""
    paths = (name.split(".") for name, _ in imports(tree))
    return {parts[1] for parts in paths if parts[0] == "submillion" and len(parts) > 1}


def ids(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_module_is_in_the_order_and_imports_only_what_stands_before_it(file: Path) -> None:
    module = module_of(file)
    if module is None:
        return
    assert module in ORDER, f"{module} has no place in the order of modules"
    assert not FORBIDDEN_NAMES & set(file.with_suffix("").relative_to(PACKAGE).parts)
    later = {
        name
        for name in own_imports(ast.parse(file.read_text())) & set(ORDER)
        if ORDER.index(name) > ORDER.index(module)
    }
    assert not later, f"{module} imports {later}, which stand after it"


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_torch_is_imported_below_the_line_only(file: Path) -> None:
    module = module_of(file)
    if module is None or (module != "cli" and ORDER.index(module) > TORCH_LINE):
        return
    found = {name for name, _ in imports(ast.parse(file.read_text())) if name.split(".")[0] in HEAVY}
    assert not found


@pytest.mark.parametrize("file", [file for file in FILES if module_of(file) in (None, "cli")], ids=ids)
def test_the_command_line_imports_heavy_modules_late(file: Path) -> None:
    below = {name for name in ORDER[TORCH_LINE + 1 :] if name not in (None, "cli")}
    top = ast.Module([node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.If)], [])
    at_import = [node for node in top.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not below & own_imports(ast.Module(list(at_import), []))


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_sizes(file: Path) -> None:
    source = file.read_text()
    assert source.count("\n") <= 400, "split it where the half has a second user or its own law in the tests"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, node.name
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            # A command's parameters are its options: typer reads them from the signature.
            assert len(parameters) <= 7 or module_of(file) == "cli", node.name


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_module_docstrings(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), "a module opens with what it owns"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "plan --help",
        "train --help",
        "config",
        "recipes",
        "runs --help",
        "compare --help",
        "report --help",
        "serve --help",
        "export --help",
        "shift --help",
        "sweep --help",
        "sweep",
    ],
)
def test_light_commands_do_not_import_torch(command: str) -> None:
    code = (
        "import sys\nfrom submillion.cli import main\n"
        f"try:\n    main({command.split()!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"assert not {HEAVY!r} & set(sys.modules), sorted({HEAVY!r} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
