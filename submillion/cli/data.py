"""`submillion data check`: what a data set holds and what is wrong with it, before anything is trained.

`submillion data augment`: what the changed copies of its training texts look like.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from submillion import data
from submillion.cli.options import ConfigOption, ForceOption, JsonOption, RecipeOption, SetOption, resolved
from submillion.config import AugmentationKind, Config, ModelConfig
from submillion.data import Census, Example, Survey, augmentation
from submillion.data.checking import metric_warnings
from submillion.data.labels import names_in, with_none
from submillion.data.long_texts import Reading
from submillion.data.tokens import fast_tokenizer
from submillion.errors import ConfigError, DataError
from submillion.reports import folds, terminal
from submillion.runs import Output
from submillion.text import percent, plural
from submillion.words import tokens

app = typer.Typer(no_args_is_help=True)
_BAR_WIDTH = 24
_SHOWN_CLASSES = 30
_LENGTHS = {"min": "least", "median": "median", "mean": "mean", "p95": "95 %", "max": "most"}


@app.callback()
def _data() -> None:
    pass


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder, packaged:NAME or a Hub name.")],
    config_file: ConfigOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print rows, classes, lengths, copies and contradictions of a data set, and every problem with it.

    Columns are the settings' (--set data.text=title). Lengths are counted with the tokenizer of model.name: name
    the encoder to train with --set model.name=..., --recipe or --config.
    """
    settings = resolved(config_file, recipe, overrides, {"data.source": file})
    model = settings.model
    tokenizer = fast_tokenizer(model)
    survey = data.survey(settings.data, Reading.of(model), tokenizer)
    if "train" in survey.censuses:
        census = survey.censuses["train"]
        about_metric = metric_warnings({} if census.labels_per_row is not None else census.classes, settings.train)
        survey = replace(survey, warnings=(*survey.warnings, *about_metric))
    if as_json:
        encoder = model.name if tokenizer is not None else None
        typer.echo(json.dumps(_as_dict(survey, model.name, encoder), indent=2, ensure_ascii=False))
    else:
        _show(survey, model.name, "" if tokenizer is not None else _unmeasured(model.name))
    if survey.problems:
        raise DataError(*survey.problems)


@app.command("augment")
def augment(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Training rows (data.source).")] = None,
    config_file: ConfigOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="synonyms, typos, lower, truncation, ... (augmentation.kind).")
    ] = None,
    n_rows: Annotated[int, typer.Option("--rows", min=1, help="How many training rows, from the first.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Print training texts with the changed copies that `train` would make of them.

    [-gone-] and {+new+} mark words. How many copies, and how much changes: --set augmentation.copies=3, .rate=0.2.
    """
    settings = resolved(config_file, recipe, overrides, {"data.source": source, "augmentation.kind": kind})
    if settings.augmentation.kind is None:
        others = [kind for kind in get_args(AugmentationKind) if kind != "synonyms"]
        raise ConfigError(
            f"augmentation.kind is null: no text is changed; add --kind synonyms (or {', '.join(others)})"
        )
    examples = data.read(settings.data).train[:n_rows]
    if as_json:
        typer.echo(json.dumps(_copies_as_dict(settings, examples), indent=2, ensure_ascii=False))
    else:
        _show_copies(settings, examples)


@app.command("errors")
def errors(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that `submillion train --folds` wrote.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="A .csv file to write all of them to: id, label, likely, probabilities."),
    ] = None,
    n_rows: Annotated[int, typer.Option("--rows", min=1, help="How many to print, the likeliest first.")] = 10,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the rows whose label is likely wrong, according to the runs that did not see them.

    Nothing is trained: the folder has the probabilities. Texts are read again from the data.
    """
    report = folds.read(folder)
    if output is not None:
        folds.write_errors(Output(output, "errors", force), report)
    if as_json:
        typer.echo(json.dumps(folds.values(report), indent=2, ensure_ascii=False))
    else:
        terminal.show([folds.label_errors(report, n_rows)])


def _unmeasured(model: str) -> str:
    """The line for lengths that are in words; if no encoder was named, it says how to name one."""
    is_default = model == ModelConfig().name
    which = f"the tokenizer.json of {model}{', the default encoder,' * is_default}"
    line = f"lengths are in words: {which} is not on this machine"
    return f"{line}; name the encoder to train: --set model.name=..., or its --recipe" if is_default else line


def _as_dict(survey: Survey, model: str, measured_with: str | None) -> dict[str, Any]:
    splits = {
        name: asdict(census) | {"shares": {label: n / census.n_rows for label, n in census.classes.items()}}
        for name, census in survey.censuses.items()
    }
    facts = {"model": model, "measured_with": measured_with, "splits": splits}
    return facts | {"problems": list(survey.problems), "warnings": list(survey.warnings)}


def _show(survey: Survey, model: str, unmeasured: str) -> None:
    console = terminal.plain()
    for name, census in survey.censuses.items():
        if census.n_rows:
            _show_census(console, name, census, model)
    if unmeasured and any(census.n_rows for census in survey.censuses.values()):
        console.print(f"{unmeasured}\n", soft_wrap=True)
    if survey.warnings:
        console.print(
            "\n".join(["notes and warnings", *(f"- {warning}" for warning in survey.warnings)]), soft_wrap=True
        )
    elif not survey.problems:
        console.print("no problems, no warnings")


def _show_census(console: Console, name: str, census: Census, model: str) -> None:
    left_out = f"; {census.n_dropped:,} left out (data.drop)" * bool(census.n_dropped)
    n = len(census.classes)
    labels = f"{n} {plural(n, 'class', 'classes')}"
    if census.labels_per_row is not None:
        labels = f"{n} {plural(n, 'label')}, {census.labels_per_row:.1f} per row, {with_none(census.n_none)}"
    console.print(
        f"{name}: {census.n_rows:,} usable {plural(census.n_rows, 'row')}, {labels}{left_out}\n", soft_wrap=True
    )
    console.print(_class_table(census))
    console.print("\n".join(_facts(census, model)) + "\n", soft_wrap=True)


def _class_table(census: Census) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class" if census.labels_per_row is None else "label")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    largest = max(census.classes.values(), default=1)
    for label, n in list(census.classes.items())[:_SHOWN_CLASSES]:
        bar = "█" * max(1, round(_BAR_WIDTH * n / largest))
        table.add_row(label, f"{n:,}", percent(n / census.n_rows), bar)
    rest = len(census.classes) - _SHOWN_CLASSES
    if rest > 0:
        table.add_row(f"and {rest:,} more", "", "", "")
    return table


def _facts(census: Census, model: str) -> Iterator[str]:
    numbers = ", ".join(f"{text} {census.lengths[key]:,.4g}" for key, text in _LENGTHS.items())
    yield f"\nlength in {census.unit}: {numbers}"
    if census.n_long is not None:
        share = f"{census.n_long:,} {plural(census.n_long, 'row')} ({percent(census.n_long / census.n_rows)})"
        read = {"cut": "cut", "head-tail": "read from both ends", "windows": "read in windows"}[census.long_texts]
        yield f"longer than {census.max_length} tokens of {model} (model.max_length), so {read}: {share}"
    if census.long_texts == "windows" and census.n_long is not None:
        yield (
            f"windows: {census.mean_windows:.2f} per text on average, {census.token_factor:.2f} times the tokens "
            f"of cut texts; rows that extend beyond their last one (model.max_windows): {census.n_truncated:,}"
        )
    yield f"rows that repeat an earlier text: {census.n_duplicates:,}; that nearly repeat one: {census.n_near:,}"
    yield f"texts with different labels: {census.n_conflicts:,}"


def _copies(settings: Config, example: Example) -> list[Example]:
    numbers = range(1, settings.augmentation.copies + 1)
    return [augmentation.copy_of(example, number, settings.augmentation, settings.train.seed) for number in numbers]


def _copies_as_dict(settings: Config, examples: Sequence[Example]) -> dict[str, Any]:
    rows = [
        {"id": example.id, "label": example.label}
        | _as_json(example)
        | {"copies": [_as_json(copy) for copy in _copies(settings, example)]}
        for example in examples
    ]
    return settings.augmentation.model_dump() | {"seed": settings.train.seed, "rows": rows}


def _as_json(example: Example) -> dict[str, str | None]:
    return {"text": example.text, "text_pair": example.text_pair}


def _texts(example: Example) -> list[str]:
    """The text, and the second one of a pair."""
    return [example.text] if example.text_pair is None else [example.text, example.text_pair]


def _show_copies(settings: Config, examples: Sequence[Example]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("row", "label", "copy", "text"):
        table.add_column(column, overflow="fold")
    for example in examples:
        table.add_row(example.id, ", ".join(names_in(example.label)), "", " | ".join(_texts(example)))
        for number, copy in enumerate(_copies(settings, example), start=1):
            marked = [_marked(*both) for both in zip(_texts(example), _texts(copy), strict=True)]
            table.add_row("", "", str(number), " | ".join(marked))
    terminal.plain().print(table)


def _marked(before: str, after: str) -> str:
    """The text after a change, with removed and new words marked."""
    old, new = tokens(before), tokens(after)
    names = ([token for token, _ in words] for words in (old, new))
    parts: list[str] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(_joined(old[i:j]))
            continue
        parts += [f"[-{_joined(old[i:j])}-]"] * (j > i) + [f"{{+{_joined(new[k:m])}+}}"] * (m > k)
    return " ".join(parts)


def _joined(words: Sequence[tuple[str, str]]) -> str:
    return " ".join("".join(token + blanks for token, blanks in words).split())
