"""The command `export`: a finished run as files that work without Submillion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submillion.cli.options import JsonOption, OutOption
from submillion.cli.predict import RunArgument
from submillion.errors import ConfigError

if TYPE_CHECKING:
    from submillion.export import Export

Format = Literal["merged", "onnx", "onnx-int8"]


def export(  # noqa: PLR0913 - each is an option
    run: RunArgument,
    kind: Annotated[Format, typer.Option("--format", help="merged: a checkpoint for transformers.")],
    output: Annotated[Path | None, typer.Option("--output", help="A new folder; default RUN/exports/FORMAT.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows to check on instead of validation; labelled for onnx-int8.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Most accuracy onnx-int8 may lose, a share of rows; default 0.01.")
    ] = None,
    push_to: Annotated[str | None, typer.Option("--push-to", help="Upload to this Hub repository, user/name.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run as a merged checkpoint, an ONNX graph or an int8 one.

    The files are loaded again and compared with the run on its validation rows before the export is called done.
    """
    from submillion import runs
    from submillion.cli.progress import StepsView

    found = runs.load(runs.locate(run, out or "runs"))
    from submillion import export as exports
    from submillion.export import hub

    if push_to is not None:
        hub.check_name(push_to)
    elif private:
        raise ConfigError("--private is for --push-to, which names the repository")
    with StepsView() as view:
        made = exports.write(found, kind, output, data, margin, view)
        address = None
        if push_to is not None:
            view(f"uploading to {push_to}", 0, 0)
            address = exports.push(made, push_to, private)
    if as_json:
        values = {"folder": str(made.folder), "is_new": made.is_new, "address": address, **made.manifest.values()}
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    typer.echo("\n".join(_lines(made, address)))


def _lines(made: Export, address: str | None) -> list[str]:
    checks, files = made.manifest.checks, made.manifest.files
    mib = sum(facts["bytes"] for facts in files.values()) / 2**20
    lines = [f"{made.folder}: {len(files) + 1} files, {mib:.1f} MiB{'' if made.is_new else ' (was there already)'}"]
    lines += [_parity(checks), *([_accuracy(checks["accuracy"])] if checks["accuracy"] else [])]
    margin = made.manifest.question.margin
    if margin is not None:
        lines.append(f"int8 loses less than {margin:g} of accuracy: the interval lies above {-margin:g}")
    lines += [f"uploaded to {address}"] if address else []
    return [*lines, f"{made.folder / 'README.md'} shows how to load it"]


def _parity(checks: Any) -> str:
    parity = checks["parity"]
    allowed = "" if parity["tolerance"] is None else f" ({parity['tolerance']:g} is allowed)"
    return (
        f"on {parity['n']:,} rows ({checks['rows']}) logits differ from the run's by at most "
        f"{parity['max_difference']:.1e}{allowed}; {parity['n_same_label']:,} labels are the same"
    )


def _accuracy(accuracy: Any) -> str:
    difference = accuracy["difference"]
    return (
        f"accuracy {accuracy['export']['value']:.4f}, the run's {accuracy['run']['value']:.4f}; difference "
        f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}], paired, 95 % interval"
    )
