"""Laws of `submillion plan`: the same numbers for people and as JSON, without torch, errors with their exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from submillion.cli import main
from submillion.config import load
from submillion.planning import alternatives, architectures, from_json, plan, resolve

FLAGSHIP = ("--set", "adapter.sites=query+value")
OVER = (*FLAGSHIP, "--set", "adapter.rank=16")


@pytest.fixture
def run(capsys):
    """Run `submillion plan` with arguments: (exit code, stdout, stderr)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["plan", *arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def test_people_read_the_plan_the_parts_the_slack_and_the_alternatives(run):
    code, out, err = run(*FLAGSHIP)
    assert (code, err) == (0, "")
    for part in (
        "roberta-base (roberta, 12 layers of width 768), 4 classes assumed",
        "999,172 of 125,647,880 parameters train (0.7952 %)",
        "slack 828; one more rank at every site costs 36,864",
        "classifier.dense",
        "59.1 %",
        "rank 11: the largest that fits",
        "r27 998,404",
        "query+key+value+attention_output",
    ):
        assert part in out
    assert max(map(len, out.splitlines()[6:])) <= 80


def test_json_is_the_plan_and_more(run):
    code, out, err = run(*FLAGSHIP, "--json")
    values = json.loads(out)
    assert (code, err) == (0, "")
    wished = load(overrides=["adapter.sites=query+value"])
    assert from_json(out) == plan(wished, 4)
    assert values["percent"] == 0.7952
    assert values["one_more_rank"] == 36_864
    assert sum(part["params"] for part in values["per_site"]) == values["total"] == 999_172
    assert len(values["alternatives"]) == len(alternatives(resolve(wished, 4)))


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (("--budget", "800000"), "budget", 800_000),
        (("--classes", "7"), "n_classes", 7),
        (("--recipe", "study-b"), "total", 999_172),
        (("--set", "adapter.method=none"), "total", 124_648_708),
        (("--set", "adapter.method=ia3"), "ranks", {}),
        (("--set", "adapter.layers=[1, 0]"), "layers", [0, 1]),
    ],
)
def test_options_reach_the_plan(run, arguments, key, value):
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    assert json.loads(out)[key] == value


def test_a_config_file_reaches_the_plan(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {name: mpnet-base}\nadapter: {sites: value, rank: 2}\n")
    code, out, _ = run("--config", str(file), "--json")
    assert code == 0
    assert json.loads(out)["ranks"] == {"value": 2}
    assert json.loads(out)["architecture"]["family"] == "mpnet"


def test_classes_are_counted_in_local_data(run, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"a text {i},{'abc'[i % 3]}\n" for i in range(9)))
    assert json.loads(run("--data", str(file), "--json")[1])["n_classes"] == 3
    assert f"3 classes in {file}" in run("--data", str(file))[1]


def test_classes_of_hub_data_are_assumed(run):
    assert "4 classes assumed (plan does not ask the Hub about o/set: --classes N)" in run("--data", "o/set")[1]
    assert "3 classes\n" in run("--data", "o/set", "--classes", "3")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "adapter.layers=top:3"), "the top 3 of 12 layers"),
        (("--set", "adapter.layers=bottom:3"), "the bottom 3 of 12 layers"),
        (("--set", "adapter.layers=[2, 5]"), "layers 2, 5"),
        (("--set", "adapter.method=none"), "the budget does not apply"),
        (("--set", "adapter.bias=all"), "biases (all)"),
        (("--budget", "600000", "--set", "adapter.sites=query", "--set", "adapter.layers=top:1"), "  - "),
    ],
)
def test_what_people_read_in_other_cases(run, arguments, told):
    code, out, _ = run(*arguments)
    assert code == 0
    assert told in out


def test_models_lists_the_checkpoints_known_offline(run):
    _, out, _ = run("--models")
    assert [line.split()[0] for line in out.splitlines()] == architectures.known()
    assert json.loads(run("--models", "--json")[1])["roberta-base"] == "FacebookAI/roberta-base"


def test_over_budget_is_exit_1_with_the_reason_on_stderr(run):
    code, out, err = run(*OVER)
    assert (code, out) == (1, "")
    for part in ("1,183,492", "183,492 over", "is 11", "head linear (592,900)"):
        assert part in err


def test_over_budget_as_json(run):
    code, out, err = run(*OVER, "--json")
    values = json.loads(out)
    assert code == 1
    assert values.pop("error") in err
    assert values == {"total": 1_183_492, "budget": 1_000_000, "excess": 183_492, "largest_rank": 11}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--classes", "1"), 2, "--classes"),
        (("--set", "model.name=robertabase"), 1, "did you mean 'roberta-base'"),
        (("--set", "adapter.sites=qury"), 1, "did you mean 'query'"),
        (("--data", "nowhere.csv"), 1, "nowhere.csv"),
        (("--budget", "0"), 1, "budget"),
    ],
)
def test_mistakes_have_their_exit_code_and_message(run, arguments, code, told):
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert told in err


def test_bars_are_plain_where_the_terminal_has_no_blocks():
    command = [sys.executable, "-m", "submillion", "plan"]
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii"}, check=False)
    assert done.returncode == 0, done.stderr
    assert b"####" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--rows", "--budget", "5000"), "--budget"),
        (("--rows", "--recipe", "demo", "--classes", "3"), "--recipe, --classes"),
        (("--models", "--rows"), "--rows"),
        (("--models", "--set", "budget=5000"), "--set"),
    ],
)
def test_what_makes_no_plan_refuses_its_options(
    run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], named: str
) -> None:
    code, _, err = run(*arguments)
    assert code == 1
    assert f"{named}: " in err
    assert "no plan is made" in err
