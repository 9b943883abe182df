"""The command `export`: a finished run as files that work without Submillion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import submillion
from submillion import runs
from submillion.cli.options import JsonOption, OutOption
from submillion.cli.predict import RunArgument
from submillion.cli.progress import View
from submillion.judging.comparison import Difference
from submillion.text import interval

if TYPE_CHECKING:
    from submillion.exports.manifest import Manifest

Format = Literal["merged", "onnx", "onnx-int8", "adapter"]


def export(  # noqa: PLR0913 - each is an option
    run: RunArgument,
    kind: Annotated[Format, typer.Option("--format", help="merged: for transformers; adapter: with --push-to.")],
    output: Annotated[Path | None, typer.Option("--output", help="A new folder; default RUN/exports/FORMAT.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows to check on instead of validation; labelled for onnx-int8.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Most accuracy onnx-int8 may lose, as a share of rows; default 0.01."),
    ] = None,
    push_to: Annotated[str | None, typer.Option("--push-to", help="Upload to this Hub repository, user/name.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a run as a merged checkpoint, an ONNX graph or an int8 ONNX graph.

    The files are loaded again and compared with the run on its validation rows before the export is called done. An
    adapter is already in its run: it is uploaded unchanged.
    """
    loaded = runs.load(run, out or "runs")
    with View() as view:
        exported = submillion.export(loaded, kind, output, data, margin, push_to, private, view.through)
    folder, manifest = exported.folder, exported.manifest
    if as_json:
        values = {"folder": str(folder), "address": exported.address}
        more = {"files": exported.files} if manifest is None else {"is_new": exported.is_new, **manifest.values()}
        typer.echo(json.dumps(values | more, indent=2, ensure_ascii=False))
        return
    was_there = "" if exported.is_new or manifest is None else " (already there)"
    mib = "" if manifest is None else f", {sum(facts['bytes'] for facts in manifest.files.values()) / 2**20:.1f} MiB"
    lines = [f"{folder}: {len(exported.files)} files{mib}{was_there}", *([] if manifest is None else _checks(manifest))]
    lines += [f"uploaded to {exported.address}"] if exported.address else []
    lines += [f"{folder / 'README.md'} shows how to load it"] if manifest is not None else []
    typer.echo("\n".join(lines))


def _checks(manifest: Manifest) -> list[str]:
    checks, margin = manifest.checks, manifest.question.margin
    has_several = "thresholds" in manifest.facts
    lines = [_parity(checks, has_several), *([_accuracy(checks["accuracy"])] if checks["accuracy"] else [])]
    if margin is not None:
        lines.append(f"int8 loses less than {margin:g} of accuracy: the interval lies above {-margin:g}")
    return lines


def _parity(checks: Any, has_several: bool) -> str:
    parity, same = checks["parity"], "rows have the same labels" if has_several else "labels are the same"
    allowed = "" if parity["tolerance"] is None else f" ({parity['tolerance']:g} is allowed)"
    return (
        f"on {parity['n']:,} rows ({checks['rows']}) logits differ from the run's by at most "
        f"{parity['max_difference']:.1e}{allowed}; {parity['n_same_label']:,} {same}"
    )


def _accuracy(accuracy: Any) -> str:
    difference = interval(Difference(**accuracy["difference"]), sign="+")
    return (
        f"accuracy {accuracy['export']['value']:.4f}, the run's {accuracy['run']['value']:.4f}; difference "
        f"{difference}, paired, 95 % interval"
    )
