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
    from submillion.runs import Run

Format = Literal["merged", "onnx", "onnx-int8", "adapter"]


def export(  # noqa: PLR0913 - each is an option
    run: RunArgument,
    kind: Annotated[Format, typer.Option("--format", help="merged: for transformers; adapter: with --push-to.")],
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

    The files are loaded again and compared with the run on its validation rows before the export is called done. An
    adapter is in its run already: it is uploaded as it is.
    """
    from submillion import runs
    from submillion.cli.progress import StepsView

    found = runs.load(run, out or "runs")
    from submillion import export as exports

    if private and push_to is None:
        raise ConfigError("--private is for --push-to, which names the repository")
    if kind == "adapter":
        _refuse_beside_adapter({"--output": output, "--data": data, "--margin": margin})
        _push_adapter(found, push_to, private, as_json)
        return
    if push_to is not None:
        exports.check(push_to, private)
    with StepsView() as view:
        made = exports.write(found, kind, output, data, margin, view)
        address = None
        if push_to is not None:
            view(f"uploading to {push_to}", 0, 0)
            address = exports.push(exports.of_export(made), push_to, private)
    if as_json:
        values = {"folder": str(made.folder), "is_new": made.is_new, "address": address, **made.manifest.values()}
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    typer.echo("\n".join(_lines(made, address)))


def _refuse_beside_adapter(options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: --format adapter writes and checks nothing; leave it out")


def _push_adapter(run: Run, push_to: str | None, private: bool, as_json: bool) -> None:
    from submillion import export as exports
    from submillion.cli.progress import StepsView

    upload = exports.of_adapter(run)
    if push_to is None:
        raise ConfigError(f"--format adapter is for --push-to: the adapter is in {upload.folder} already")
    exports.check(push_to, private)
    with StepsView() as view:
        view(f"uploading to {push_to}", 0, 0)
        address = exports.push(upload, push_to, private)
    values = {"folder": str(upload.folder), "address": address, "files": upload.files}
    lines = f"{upload.folder}: {len(upload.files)} files\nuploaded to {address}"
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False) if as_json else lines)


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
