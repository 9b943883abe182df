"""The command line: parse, load the command's module, call, print, exit.

Each command's function lives in a file of this folder that is imported when the command is called, so that help is
quick. Exit codes: 0 fine, 1 the user's input, 2 usage, 3 internal. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import codecs
import io
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version as installed
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_group

from submillion.cli.launched import launched
from submillion.errors import SubmillionError, is_out_of_memory, os_problem
from submillion.text import first_line, visible, without_secrets

_INTERRUPTED = 130  # 128 + SIGINT, as in shells
_IN_ASCII = str.maketrans("█━╸╺–—−×·•→…“”‘’", "#==----x.*>.\"\"''")  # our own signs, where a terminal has none of them

# Each command: where its function, or its group of commands, is, and the first line of its help.
COMMANDS = {
    "plan": ("submillion.cli.plan:plan", "Show the exact ranks that a budget buys."),
    "train": ("submillion.cli.train:train", "Train a classifier inside the budget."),
    "evaluate": (
        "submillion.cli.predict:evaluate",
        "Score a run on a labelled file, unchanged or perturbed, or on one with only a few labels.",
    ),
    "predict": (
        "submillion.cli.predict:predict",
        "Predict labels for the rows of a file, with one run or the mean of several.",
    ),
    "export": (
        "submillion.cli.export:export",
        "Export a run as a merged checkpoint, an ONNX graph or an int8 ONNX graph.",
    ),
    "sweep": (
        "submillion.cli.sweep:sweep",
        "Run a study: train its trials as ordinary runs, compare them, recommend one.",
    ),
    "compare": (
        "submillion.cli.compare:compare",
        "Say which runs or settings can be told apart, and which to use.",
    ),
    "report": (
        "submillion.cli.report:report",
        "Rewrite the report of a run or study: report.html, report.md, report.json, figures.",
    ),
    "serve": (
        "submillion.cli.serve:serve",
        "Serve a web page (runs, comparisons, planner, playground), and predictions under /v1.",
    ),
    "shift": (
        "submillion.cli.shift:shift",
        "Say how an unlabelled file differs from the training data, and estimate accuracy on it.",
    ),
    "ask": (
        "submillion.cli.ask:ask",
        "Choose which rows of a file to label, to measure accuracy on it or to train on.",
    ),
    "config": ("submillion.cli.settings:config", "Print every setting with its meaning, as YAML."),
    "recipes": ("submillion.cli.settings:recipes", "List the shipped recipes, or print one."),
    "runs": ("submillion.cli.runs:app", "List, show and remove run folders."),
    "data": ("submillion.cli.data:app", "Inspect data before training."),
}


class LazyGroup(TyperGroup):
    """The commands of the table: help lists its lines, and only the command that is called is loaded."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name, the command and the remaining arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else loaded(name), rest


def loaded(name: str) -> Any:
    """Return a command of the table, its module imported."""
    where, line = COMMANDS[name]
    module, _, attribute = where.partition(":")
    target = getattr(import_module(module), attribute)
    alone = typer.Typer(rich_markup_mode=None)
    if isinstance(target, typer.Typer):
        alone.add_typer(target, name=name, help=line)
    else:
        alone.command(name)(target)
    return get_group(alone).commands[name]


app = typer.Typer(
    name="submillion",
    cls=LazyGroup,
    help="Fine-tune a pretrained encoder for text classification inside a budget of trainable parameters.",
    epilog="-v anywhere prints tracebacks. Exit codes: 0 success, 1 bad input, 2 bad usage, 3 internal error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"submillion {installed('submillion')}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print it."),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _write_what_the_terminal_lacks(as_json="--json" in words)
    verbose = "-v" in words
    words = [argument for argument in words if argument != "-v"]
    try:
        with launched(words):
            code = app(words, standalone_mode=False)
        if code == _INTERRUPTED:  # typer answers Ctrl-C with this code, not with the exception
            raise KeyboardInterrupt
    except TyperException as error:
        cast("Any", error).show()  # every one that parsing raises can print itself, with its usage line
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say(
            "stopped; run the same command again to resume"
            if words[:1] in (["train"], ["sweep"], ["predict"])
            else "stopped"
        )
        code = _INTERRUPTED
    except SubmillionError as error:
        _say(f"error: {error}", verbose)
        code = 1
    except OSError as error:  # a full disk, a folder without permission: the machine's state, not our fault
        problem = SubmillionError(f"{error.filename or 'output'}: {os_problem(error)}")
        _say(f"error: {problem}", verbose)
        code = 1
    except Exception as error:
        if is_out_of_memory(error):
            reason = first_line(error)
            _say(f"error: out of memory ({reason}); close other programs, or ask for less; finished work is kept")
            code = 1
        else:
            _say(f"internal error: {type(error).__name__}: {error}", verbose)
            if not verbose:
                _say("this is a bug in submillion; -v shows where")
            code = 3
    sys.exit(code if isinstance(code, int) else 0)


def _write_what_the_terminal_lacks(as_json: bool) -> None:
    """Make stdout and stderr escape characters that their encoding lacks, for which Python would raise.

    The escapes are JSON's, so that labels stay distinct and JSON stays valid; our own signs have a plain form.
    """
    codecs.register_error("submillion", partial(_instead, {} if as_json else _IN_ASCII))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's or a test's has no encoding
            with suppress(OSError):  # it was a file when Python opened it, and a pipe took its place
                stream.reconfigure(errors="submillion")


def _instead(plain: dict[int, str] | dict[int, int], error: UnicodeError) -> tuple[str, int]:
    """The text in place of characters that cannot be encoded, and where encoding continues."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(plain)
    units = lacking.encode("utf-16-be", "surrogatepass")  # JSON escapes a character beyond 16 bits as two
    escaped = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in escaped), error.end


def _say(text: str, verbose: bool = False) -> None:
    if verbose:
        text = traceback.format_exc() + text
    print(visible(without_secrets(text)), file=sys.stderr)  # noqa: T201
