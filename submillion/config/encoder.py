"""The settings of the encoder, of what it reads of a text, and of its head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from submillion.config.fields import Count, Frac, Section, setting

Head = Literal["full", "linear", "bottleneck"]
LongTexts = Literal["cut", "head-tail", "windows"]
Pooling = Literal["mean", "max"]
MAX_WINDOWS = 32  # per text, if model.max_windows is null


class ModelConfig(Section):
    """The pretrained encoder and its head."""

    name: Annotated[str, Field(min_length=1)] = setting(
        "roberta-base", "a known checkpoint (`submillion plan --models`), a local folder, or a Hub name"
    )
    revision: Annotated[str, Field(min_length=1)] | None = setting(
        None, "a Hub model's branch, tag or commit; null = main; a run keeps the commit that this was when it started"
    )
    max_length: Annotated[int, Field(ge=4, le=8192)] = setting(
        128, "tokens read at once, including special tokens; long_texts decides what happens to longer texts"
    )
    long_texts: LongTexts = setting(
        "cut",
        "what is read of texts longer than max_length: cut: the beginning; head-tail: the first and last "
        "tokens, a quarter and three quarters; windows: everything, in windows of max_length tokens that overlap by a "
        "quarter",
    )
    max_windows: Annotated[int, Field(ge=1, le=1024)] | None = setting(
        None, "maximum windows per text; the rest is not read; null = 32; only for long_texts: windows"
    )
    window_pooling: Pooling | None = setting(
        None,
        "a text's logits from those of its windows: their mean, or each class's largest; null = mean; only for "
        "long_texts: windows",
    )
    head: Head = setting(
        "full",
        "full: every layer after the encoder trains; linear: only the last one; "
        "bottleneck: a dense layer of low rank and the last one",
    )
    head_width: Count | None = setting(None, "the bottleneck's rank, in units; null = 32; only for head: bottleneck")
    dropout: Frac | None = setting(None, "hidden and attention dropout, a probability; null = the checkpoint's own")
    prefix: bool | None = setting(
        None,
        "true: layers below the lowest adapted one run without dropout, and their output is computed once "
        "and kept; false: never; null = if model.dropout is 0 and rows are read more than once",
    )

    @model_validator(mode="after")
    def _width_needs_bottleneck(self) -> ModelConfig:
        if self.head_width is not None and self.head != "bottleneck":
            raise ValueError(
                f"head_width is {self.head_width}, but head is {self.head}: only head: bottleneck has a width"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_wanted(self) -> ModelConfig:
        values = {"max_windows": self.max_windows, "window_pooling": self.window_pooling}
        problems = [
            f"{key} is {value}, but long_texts is {self.long_texts}: only long_texts: windows has windows"
            for key, value in values.items()
            if value is not None and self.long_texts != "windows"
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
