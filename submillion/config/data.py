"""The settings of the rows: where they come from, which columns mean what, how they are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from submillion.config.fields import Section, Seed, setting
from submillion.text import shown

Drop = Literal["bad-rows", "rare-classes"]
Labels = Literal["one", "several"]  # labels per row
MOST_FOLDS = 100
_SEPARATORS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
}  # which a shell or YAML may interpret


def fold_of(text: str | None) -> tuple[int, int] | None:
    """Return the number of a fold, from 1, and how many there are; None for none.

    >>> fold_of("2/5")
    (2, 5)
    """
    if text is None:
        return None
    number, _, n_folds = text.partition("/")
    return int(number), int(n_folds)


class DataConfig(Section):
    """Where rows come from, and how they are split."""

    source: str | None = setting(
        None,
        "training rows: a .csv, .tsv, .jsonl, .parquet, .feather, .xlsx, .sqlite or .zip file (FILE::NAME names a "
        "sheet, a table or a file in one), a folder with train.* (and validation.*, test.*), a Hub name such as "
        "fancyzhx/ag_news, or packaged:tweets (packaged:amazon, :films, :news)",
    )
    revision: Annotated[str, Field(min_length=1)] | None = setting(
        None, "a Hub set's branch, tag or commit; null = main; a run keeps the commit that it read"
    )
    config: Annotated[str, Field(min_length=1)] | None = setting(
        None, "a Hub set's configuration, such as sst2 of nyu-mll/glue; null = the only one, or the set's default"
    )
    text: str | tuple[str, ...] = setting("text", "the text column, or several, joined by a space")
    text_pair: str | None = setting(None, "the column of a second text, for pairs; null = single texts")
    label: str | tuple[str, ...] = setting(
        "label",
        "the label column: names or numbers, one per row, or several as a list or joined by a separator; or several "
        "columns of 0 and 1, whose names are the labels",
    )
    labels: Labels | None = setting(
        None,
        "one: a row has one label; several: any number, including none; null = several if there are several "
        "columns, or if at least 5 % of the rows have lists or joined labels",
    )
    label_separator: Annotated[str, Field(min_length=1)] | None = setting(
        None,
        "what joins several labels in a cell: a text, or comma, semicolon, tab, pipe; null = whichever of these does",
    )
    encoding: str | None = setting(
        None, "of text files that are not UTF-8, such as cp1252; null = UTF-8, or UTF-16 if a file is"
    )
    separator: str | None = setting(
        None,
        "between the cells of .csv and .tsv files: a character, or comma, semicolon, tab, pipe; null = "
        "the one that separates the names in the first line",
    )
    header: bool | tuple[str, ...] = setting(
        True,
        "true: the first line of .csv and .tsv files names the columns; false: there is none, and columns are called "
        "0, 1, ...; or the columns' names, for files without it",
    )
    drop: tuple[Drop, ...] = setting(
        (),
        "rows to leave out, and count, instead of refusing: bad-rows: empty texts, missing labels, broken lines; "
        "rare-classes: classes with fewer than 2 different texts",
    )
    group: str | None = setting(
        None,
        "a column, such as customer or document: rows with the same value in it are never in two splits; "
        "null = each row is its own group",
    )
    split: str | None = setting(
        None,
        "a column that says which split a row is in: train, validation (or dev, val, valid, eval) or test; null = none",
    )
    validation: float | int | str = setting(
        0.1, "the validation split: a fraction below 1, a number of rows, or a file"
    )
    test: float | int | str | None = setting(
        None, "the test split: the same choices; null = the source's own test split, if it has one"
    )
    more: tuple[Annotated[str, Field(min_length=1)], ...] = setting(
        (),
        "files of more training rows, such as those of `submillion ask` with labels: the same columns, named "
        "in the first line; rows without a label yet, and those also in validation or test, are left out",
    )
    train_rows: float | int | None = setting(
        None, "training rows to use, after the splits are made: a fraction below 1 or a number; null = all"
    )
    fold: Annotated[str, Field(pattern=r"^[1-9]\d{0,2}/[1-9]\d{0,2}$")] | None = setting(
        None,
        "such as 2/5: the test split is fold 2 of 5 of the training and validation rows, and validation is taken from "
        "the rest; `submillion train --folds 5` sets it for each of its runs; null = none",
    )
    seed: Seed = setting(0, "which rows make the validation and test splits, and the folds")

    @field_validator("fold")
    @classmethod
    def _one_of_several(cls, value: str | None) -> str | None:
        number, n_folds = fold_of(value) or (1, MOST_FOLDS)
        if not (number <= n_folds and 2 <= n_folds <= MOST_FOLDS):
            raise ValueError(f"fold is {value}: give one of 2 to {MOST_FOLDS} folds, counted from 1, such as 2/5")
        return value

    @model_validator(mode="after")
    def _one_origin_of_splits(self) -> DataConfig:
        files = [key for key in ("validation", "test") if isinstance(getattr(self, key), str)]
        if self.split is not None and files:
            raise ValueError(
                f"split is {self.split!r}, a column that says which split a row is in, but {files[0]} is a file, "
                f"{getattr(self, files[0])}: leave one of them out"
            )
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except (LookupError, ValueError):  # ValueError: a NUL, or a name that is not ASCII
            raise ValueError(
                f"encoding is {shown(value)}, which is unknown: allowed are cp1252 (Windows), latin-1, "
                "cp1251, gb18030, shift_jis, utf-16 and Python's others"
            ) from None
        return value

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        character = None if value is None else _SEPARATORS.get(value, value)
        if character is not None and (len(character) != 1 or character in '"\r\n'):
            raise ValueError(f"separator is {shown(value)}: give one character, or a name: comma, semicolon, tab, pipe")
        return character

    @field_validator("label_separator")
    @classmethod
    def _joining_text(cls, value: str | None) -> str | None:
        return None if value is None else _SEPARATORS.get(value, value)

    @field_validator("label")
    @classmethod
    def _different_labels(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(value, str) and (len(value) < 2 or len(set(value)) < len(value)):
            raise ValueError(
                f"label is {shown(list(value))}: give one column, or at least 2 different ones "
                "of 0 and 1, one for each label"
            )
        return value

    @field_validator("header")
    @classmethod
    def _different_names(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if not isinstance(value, bool) and (not value or len(set(value)) < len(value)):
            raise ValueError(f"header is {shown(list(value))}: name each column once, in their order in the file")
        return value

    @field_validator("drop", "more", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("text", "text_pair", "label", "group", "split", mode="before")
    @classmethod
    def _number_as_name(cls, value: Any) -> Any:
        """Return columns' numbers, which YAML reads as such, as their names."""
        if isinstance(value, list | tuple):
            return [str(part) if type(part) is int else part for part in value]
        return str(value) if type(value) is int else value  # a bool is an int too

    @field_validator("validation", "test", "train_rows", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):  # a bool is an int to Python: true would be one row
            raise ValueError(
                f"{value} is not a size: allowed are a fraction between 0 and 1, a number of rows, or a file"
            )
        return value

    @model_validator(mode="after")
    def _check_sizes(self) -> DataConfig:
        for key in ("validation", "test", "train_rows"):
            value = getattr(self, key)
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(
                    f"{key} is {value}: allowed are a fraction between 0 and 1, a number of rows, or a file"
                )
            if isinstance(value, float) and value >= 1 and not value.is_integer():
                raise ValueError(f"{key} is {value}: give a whole number of rows")
        if not self.text:
            raise ValueError("text is empty: name at least one column")
        return self

    @model_validator(mode="after")
    def _labels_of_one_kind(self) -> DataConfig:
        if self.labels == "one" and not isinstance(self.label, str):
            raise ValueError(
                f"label names {len(self.label)} columns but labels is one: columns of 0 and 1 are several labels; set "
                "labels to null, or name one column"
            )
        if self.label_separator is not None and (self.labels == "one" or not isinstance(self.label, str)):
            why = "labels is one" if self.labels == "one" else "label names several columns"
            raise ValueError(
                f"label_separator is {shown(self.label_separator)}, and {why}: it joins labels in cells of one column; "
                "leave it out"
            )
        return self
