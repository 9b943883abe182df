"""The settings of a run: every key with its default, its unit, its help text and its limits.

Defaults live here and nowhere else. Absent is null; what null means is in the help text.
Settings that contradict each other are refused here, so later modules need not check.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from submillion.config.data import DataConfig
from submillion.config.encoder import MAX_WINDOWS, ModelConfig
from submillion.config.fields import Count, Frac, Positive, Rate, Section, Seed, setting

Method = Literal["lora", "dora", "adalora", "ia3", "none"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Metric = Literal[
    "accuracy", "macro-f1", "log-loss", "average-precision", "mcc", "micro-f1", "hamming", "subset-accuracy"
]


class AdapterConfig(Section):
    """What is trained inside the encoder."""

    method: Method = setting("lora", "lora, dora, adalora, ia3, or none: full fine-tuning, outside the budget")
    sites: str | tuple[str, ...] = setting(
        "all-linear",
        "linear layers that get an adapter: query, key, value, attention_output, ffn_in, ffn_out; "
        "qkv = the first three, dense = the last three; all-linear = all; or a module's name or pattern (*)",
    )
    layers: str | tuple[int, ...] | None = setting(
        None, "encoder layers, counted from 0 at the bottom: null = all, top:N, bottom:N, or a list"
    )
    rank: Count | dict[str, Count] | None = setting(
        None, "rank of every site, or {site: rank}; null = the largest that fits the budget"
    )
    target_rank: Count | None = setting(
        None, "AdaLoRA's mean rank at the end; null = two thirds of rank; only for method: adalora"
    )
    alpha: Positive | None = setting(
        None, "LoRA's scale: the update is scaled by alpha / rank (alpha / sqrt(rank) with rslora); null = 2 x rank"
    )
    dropout: Frac = setting(0.0, "dropout on each adapter's input, a probability")
    bias: Literal["none", "all", "lora_only"] = setting(
        "none", "biases that train too: none, all (of the encoder), lora_only (of the adapted linear layers)"
    )
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = setting(
        "default", "initial A and B; pissa and olora take them from the weights"
    )
    rslora: bool = setting(False, "scale by alpha / sqrt(rank) (rank-stabilised LoRA)")
    start_from: str | None = setting(
        None,
        "a finished run's folder (not its name or hash), whose adapter, and head if the labels agree, training starts "
        "from",
    )

    @model_validator(mode="after")
    def _check_method(self) -> AdapterConfig:
        allowed = {
            "rank": ("lora", "dora", "adalora"),
            "target_rank": ("adalora",),
            "alpha": ("lora", "dora", "adalora"),
            "rslora": ("lora", "dora"),
        }
        problems = [
            f"{key} is set, but method {self.method} has none: allowed with {', '.join(methods)}"
            for key, methods in allowed.items()
            if getattr(self, key) and self.method not in methods
        ]
        if self.init != "default" and self.method not in ("lora", "dora"):
            problems.append(f"init is {self.init}: allowed with lora and dora, not with {self.method}")
        if self.init in ("pissa", "olora") and self.method == "dora":
            problems.append(
                f"init is {self.init}: it changes the base weights that DoRA's magnitudes come from; use lora"
            )
        if self.dropout and self.method in ("ia3", "none"):
            problems.append(f"dropout is {self.dropout}, but method {self.method} has none")
        if self.bias != "none" and self.method in ("ia3", "none"):
            problems.append(f"bias is {self.bias}: allowed with lora, dora and adalora, not with {self.method}")
        if self.method == "adalora" and isinstance(self.rank, dict):
            problems.append("rank is a table, but AdaLoRA spreads one rank itself: give a number or null")
        if self.start_from is not None and self.init != "default":
            problems.append(f"init is {self.init} and start_from is set: both decide the initial weights; keep one")
        if not self.sites:
            problems.append("sites is empty: name at least one, or use method: none")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class TrainConfig(Section):
    """The optimisation."""

    optimizer: Literal["adamw", "sgd", "rmsprop"] = setting("adamw", "adamw, sgd or rmsprop")
    learning_rate: Rate = setting(5e-4, "peak learning rate of the adapters")
    head_learning_rate: Rate | None = setting(None, "peak learning rate of the head; null = learning_rate")
    schedule: Literal["linear", "cosine", "cosine-restarts", "polynomial", "constant"] = setting(
        "linear", "how the learning rate falls after warm-up"
    )
    cycles: Count = setting(2, "cosine-restarts: number of cycles")
    power: Positive = setting(1.0, "polynomial: the power; 1 is linear")
    warmup: Annotated[float, Field(ge=0, le=1e12)] = setting(
        0.06, "steps over which the learning rate rises, or a fraction of all steps, below 1"
    )
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = setting(
        0.01, "decay of weight matrices; biases and norms have none"
    )
    momentum: Frac = setting(0.9, "momentum of sgd and rmsprop")
    label_smoothing: Frac = setting(0.0, "share of each target spread over all classes")
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = setting(
        0.0, "focal loss: a row weighs (1 - probability of its label) to this power; 0 = equal weights, 2 is common"
    )
    class_weights: Literal["balanced"] | dict[str, Positive] | None = setting(
        None, "loss weight of each class: balanced = inverse to its rows, or {label: weight}"
    )
    batch_size: Count = setting(32, "rows per forward pass")
    batch_tokens: Count | None = setting(
        None, "maximum tokens per forward pass, instead of batch_size; at least model.max_length; null = by rows"
    )
    evaluation_batch_size: Count = setting(
        128,
        "maximum rows per forward pass outside training; fewer if they have more than 4,096 tokens; on a "
        "GPU 8 times as many of both",
    )
    accumulation: Count = setting(1, "batches per step")
    epochs: Positive | None = setting(
        None, "passes over the training split; null (and steps null) = as many as reach 600 steps, 1 to 10"
    )
    steps: Count | None = setting(None, "optimiser steps, instead of epochs")
    evaluate_every: Count | Annotated[float, Field(gt=0, lt=1)] | None = setting(
        None,
        "steps between evaluations, or a fraction of all steps, below 1; null = up to 20 evaluations that read at "
        "most a quarter as many rows as training, but at least one",
    )
    checkpoint_every: Count = setting(
        100, "steps between checkpoints, on a GPU at least 10 seconds; every evaluation writes one too"
    )
    metric: Metric | None = setting(
        None,
        "the score reported first; if set, it also decides, unless decide says otherwise; macro-f1, "
        "average-precision and mcc count rare classes as much as common ones; with several labels, hamming counts "
        "correct decisions, subset-accuracy rows with all correct; null = accuracy, with several labels micro-f1",
    )
    decide: Metric | None = setting(
        None,
        "the validation score that chooses the checkpoint (log loss breaks ties) and decides comparisons and "
        "studies; log-loss is the scaled one, after temperature scaling, among checkpoints that the test of accuracy "
        "does not call worse; null = metric if that is set, else log-loss",
    )
    threshold: Literal["one", "each"] | Annotated[float, Field(gt=0, lt=1)] = setting(
        "one",
        "with several labels, the probability from which one is given: one: chosen on validation for the highest "
        "micro-F1; each: each label's own, for its highest F1; or a number above 0 and below 1",
    )
    patience: Count | None = setting(
        None, "stop after this many evaluations without a better score (ties count); null = never"
    )
    max_grad_norm: Positive | None = setting(1.0, "gradients are scaled down to this norm; null = never")
    gradient_checkpointing: bool = setting(False, "compute each layer twice, to keep less in memory")
    precision: Precision | None = setting(
        None, "of products with frozen weights: fp32, bf16, fp16, int8; null = measured"
    )
    seed: Seed = setting(0, "seed of initial weights, row order, dropout, augmentation")

    @property
    def deciding(self) -> Metric:
        """Return the score that decides: `decide`, else `metric`, else log-loss, which means the scaled one."""
        return self.decide or self.metric or "log-loss"

    @field_validator("class_weights", mode="before")
    @classmethod
    def _names_of_numbers(cls, value: Any) -> Any:
        """Return weights by labels' names: YAML reads labels that are numbers as numbers."""
        return {str(label): weight for label, weight in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs is {self.epochs} and steps is {self.steps}: keep one, set the other to null")
        if self.warmup >= 1 and not float(self.warmup).is_integer():
            raise ValueError(f"warmup is {self.warmup}: give whole steps, or a fraction below 1")
        return self


AugmentationKind = Literal[
    "synonyms", "deletion", "swap", "insertion", "typos", "lower", "upper", "truncation", "punctuation", "first-column"
]


class AugmentationConfig(Section):
    """Changed copies of training texts."""

    kind: AugmentationKind | Annotated[tuple[AugmentationKind, ...], Field(min_length=1)] | None = setting(
        None,
        "how texts are changed: one way, or several taken in turn; null = not; see Robustness in the documentation",
    )
    copies: Count = setting(1, "changed copies per text")
    rate: Annotated[float, Field(gt=0, le=1)] = setting(
        0.1, "share of a text's words that change, at least one; for deletion, the probability of each"
    )
    placement: Literal["beside", "rotating"] = setting(
        "beside",
        "beside: an epoch reads each text and all its copies; rotating: one of them, the text itself in the first "
        "epoch, copy 1 in the second, and so on",
    )


class DistillationConfig(Section):
    """A teacher's logits as a second target."""

    teacher: str | tuple[str, ...] | None = setting(
        None, "a finished run (folder, name or hash), a recipe or config file, or several of these; null = no teacher"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = setting(
        0.5, "weight of the label loss; the teacher's loss has the rest"
    )
    temperature: Positive = setting(2.0, "both sets of logits are divided by it")
    scaled: bool = setting(True, "multiply the teacher's part by temperature squared")


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Config(Section):
    """Everything a run is made from."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = setting(
        "run", "first part of the run folder's name: letters, digits, dot, dash, underscore"
    )
    budget: Count = setting(1_000_000, "maximum trainable parameters, including the head")
    out: Annotated[str, Field(min_length=1)] = setting("runs", "the folder for run folders")
    device: Literal["cpu", "cuda", "mps"] | None = setting(None, "null = cuda, then mps, then cpu")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    distillation: DistillationConfig = DistillationConfig()
    tracking: tuple[Tracker, ...] = setting((), "where records go in addition to metrics.jsonl")

    @field_validator("out")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(f"out is {value}: give a folder on this machine's disks, not a URL")
        return value

    @model_validator(mode="after")
    def _any_text_fits_a_batch(self) -> Config:
        tokens, longest, keys = self.train.batch_tokens, self.model.max_length, "model.max_length"
        if self.model.long_texts == "windows":
            n_windows = self.model.max_windows or MAX_WINDOWS
            longest, keys = n_windows * longest, f"{n_windows} windows of model.max_length {longest}; model.max_windows"
        if tokens is not None and tokens < longest:
            raise ValueError(
                f"train.batch_tokens is {tokens}, but a text may have {longest} tokens ({keys}): raise the first or "
                "lower the second"
            )
        return self

    @model_validator(mode="after")
    def _single_texts_are_long(self) -> Config:
        if self.model.long_texts != "cut" and self.data.text_pair is not None:
            raise ValueError(
                f"model.long_texts is {self.model.long_texts} and data.text_pair is {self.data.text_pair}: it is "
                "unclear which text of a pair to shorten; use cut, which shortens the longer one, or leave "
                "data.text_pair out and name both columns in data.text, which joins them into one text"
            )
        return self
