"""The command line: parse, import late, call, print, exit.

Commands live in this folder, a file a concern. Exit codes: 0 fine, 1 the user's input, 2 usage,
3 internal. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, cast

import typer
from typer.exceptions import TyperException

from submillion.cli import compare, data, export, plan, predict, report, runs, serve, settings, shift, sweep, train
from submillion.cli.launched import launched
from submillion.errors import SubmillionError, first_line, is_out_of_memory, os_problem, visible, without_secrets

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="submillion",
    help="Fine-tune a pretrained encoder for text classification inside a budget of trainable parameters.",
    epilog="-v anywhere prints tracebacks. Exit codes: 0 fine, 1 input, 2 usage, 3 internal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("plan")(plan.plan)
app.command("train")(train.train)
app.command("evaluate")(predict.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("sweep")(sweep.sweep)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("shift")(shift.shift)
app.command("config")(settings.config)
app.command("recipes")(settings.recipes)
app.add_typer(runs.app, name="runs", help="List, show and remove run folders.")
app.add_typer(data.app, name="data", help="Look at data before training.")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"submillion {version('submillion')}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print it."),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "-v" in given
    given = [argument for argument in given if argument != "-v"]
    try:
        with launched(given):
            code = app(given, standalone_mode=False)
        if code == _INTERRUPTED:  # typer answers Ctrl-C with this code, not with the exception
            raise KeyboardInterrupt
    except TyperException as error:
        cast("Any", error).show()  # every one that parsing raises can print itself, with its usage line
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say(
            "stopped; the same command goes on where it stopped"
            if given[:1] in (["train"], ["sweep"], ["predict"])
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
            _say(f"error: memory ran out ({reason}); end what else is in it, or ask for less; what is finished is kept")
            code = 1
        else:
            _say(f"internal error: {type(error).__name__}: {error}", verbose)
            if not verbose:
                _say("this is a fault of submillion; -v shows where")
            code = 3
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str, verbose: bool = False) -> None:
    if verbose:
        text = traceback.format_exc() + text
    print(visible(without_secrets(text)), file=sys.stderr)  # noqa: T201
