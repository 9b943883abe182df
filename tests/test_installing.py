"""What is imported is declared, what is missing is named with the line that installs it, and other systems can plan."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from submillion.errors import install_line
from tests.data import write_csv

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: packages for name, packages in PROJECT["optional-dependencies"].items() if name not in ("dev", "docs")}
HOMES = packages_distributions()  # an imported name's distributions
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "submillion").rglob("*.py")}

# A process in which some modules are not there, for whoever imports them and for whoever looks for them.
WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
# One in which Submillion's own files cannot import them; torch and others have files for each system.
NOT_FROM_OURS = """
import builtins
found = builtins.__import__

def of_ours(name, variables=None, *more, **named):
    if name in MISSING and (variables or {}).get("__name__", "").startswith("submillion"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, variables, *more, **named)

builtins.__import__ = of_ours
"""
CALL = """
def call(*words):
    from submillion.cli import main
    try:
        main(list(words))
    except SystemExit as stop:
        assert not stop.code, words
"""
# What Python has on Linux and not on Windows: its documentation, "Availability: Unix".
NOT_ON_WINDOWS = {
    "crypt",
    "fcntl",
    "grp",
    "nis",
    "ossaudiodev",
    "pty",
    "pwd",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
}


def run(missing: set[str], how: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own in the folder, where `missing` modules are not there."""
    script = "\n".join([f"MISSING = {missing!r}", how, CALL, code])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def installed_with(requirements: list[str]) -> set[str]:
    """The distributions that come with some requirements, and with what they require."""
    found: set[str] = set()
    left = [Requirement(requirement) for requirement in requirements]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = ("", *requirement.extras)
        if name in found or not any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            continue
        found.add(name)
        for each in distribution(name).requires or []:
            needed = Requirement(each)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                needed.marker = None
                left.append(needed)
    return found


def imported(source: str) -> Iterator[str]:
    """The first names of what a file imports when it runs, of others than Python and Submillion."""
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
        paths = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        paths += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        first = {path.partition(".")[0] for path in paths}
        # Builds of torch with CUDA bring Triton.
        yield from first - sys.stdlib_module_names - {"submillion", "triton"}


def test_every_import_is_declared() -> None:
    declared = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, source in SOURCES.items()
        for name in imported(source)
        if not declared & {name, *map(canonicalize_name, HOMES.get(name, []))}
    }
    assert not missing


def test_every_declared_dependency_is_imported() -> None:
    used = {name for source in SOURCES.values() for name in imported(source)}
    used |= {canonicalize_name(home) for name in used for home in HOMES.get(name, [])}
    assert not names(PROJECT["dependencies"]) - used
    through_others = {"onnx", "tensorboard"}  # torch.onnx imports the one, accelerate the other
    assert not set().union(*map(names, EXTRAS.values())) - used - through_others


def test_no_text_says_an_install_line_that_does_not_work() -> None:
    texts = {*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")}
    for path in texts - {Path(__file__)}:
        assert not re.search(r"pip install\s+['\"]?submillion", path.read_text(encoding="utf-8")), path


def test_every_install_line_names_an_extra() -> None:
    extras = {extra for source in SOURCES.values() for extra in re.findall(r"install_line\(['\"](\w+)", source)}
    assert extras == EXTRAS.keys()
    for path in (ROOT / "docs").rglob("*.md"):
        assert set(re.findall(r"pip install -e '\.\[(\w+)\]'", path.read_text(encoding="utf-8"))) <= EXTRAS.keys(), path


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["the checkout", "another"])
def test_pip_takes_the_install_line(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "submillion", checkout / "submillion", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    monkeypatch.setattr("submillion.errors._PACKAGE", checkout / "submillion")
    monkeypatch.chdir(checkout if folder == "the checkout" else tmp_path)
    line = install_line("serve")
    assert line.endswith("install -e '.[serve]'") == (folder == "the checkout")
    offline = ["--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*shlex.split(line), *offline], capture_output=True, text=True, check=False)
    assert "Would install submillion-" in done.stdout, done.stderr


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_install_line_from_a_wheel_has_the_packages(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.errors._PACKAGE", tmp_path / "submillion")
    monkeypatch.setattr(
        "submillion.errors.requires",
        lambda _: [f'{package}; extra == "{name}"' for name in EXTRAS for package in EXTRAS[name]],
    )
    _, packages = install_line(extra).split(" install ")
    assert shlex.split(packages) == EXTRAS[extra]


@pytest.mark.slow
def test_planning_training_reports_and_predictions_need_no_extra(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = installed_with(PROJECT["dependencies"]) | {"submillion"}
    missing = {name for name, homes in HOMES.items() if not core & {*map(canonicalize_name, homes)}}
    assert {"optuna", "fastapi", "onnx", "datasets", "ray", "wandb", "pandas", "pytest"} <= missing
    settings = [f"model.name={encoders['bert']}", "data.source=rows.csv", "train.steps=2", "train.precision=fp32"]
    words = [word for setting in settings for word in ("--set", setting)]
    write_csv(tmp_path / "rows.csv", 60)
    code = f"""
from pathlib import Path
call("plan", *{words!r})
call("train", *{words!r})
(run,) = Path("runs").glob("run-*")
assert (run / "report.html").is_file()
call("report", str(run))
call("predict", str(run), "--input", "rows.csv", "--output", "labels.csv")

import submillion
try:
    submillion.sweep
except submillion.errors.ConfigError as error:
    print(error)
"""
    said = run(missing, WITHOUT, code, tmp_path).stdout.splitlines()
    monkeypatch.chdir(tmp_path)
    assert said[-1] == f"sweep needs optuna: {install_line('sweeps')}"


@pytest.mark.slow
def test_where_unix_modules_are_missing_everything_is_imported_and_planning_works(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", 60)
    code = """
call("plan", "--data", "rows.csv")
call("config")
call("data", "check", "rows.csv", "--set", "model.name=roberta-base")
import importlib, pkgutil, submillion
for module in pkgutil.walk_packages(submillion.__path__, "submillion."):
    if not module.name.endswith(("__main__", "_kernels")):
        importlib.import_module(module.name)
"""
    assert "no problems, no warnings" in run(NOT_ON_WINDOWS, NOT_FROM_OURS, code, tmp_path).stdout


def test_the_source_archive_is_the_checkout(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout, but perhaps such an archive")
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()} - {".gitignore"}
    for name in files:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "in" / name)
    code = f"from setuptools.build_meta import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "in", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert not files - inside
