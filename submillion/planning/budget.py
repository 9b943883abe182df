"""Exact counts of what trains: adapters, biases and the head, from shapes alone.

What trains, to the parameter (injection must agree, and is checked against it):

* lora: A [r, d_in] and B [d_out, r] of each target; dora: the magnitude [d_out] too; adalora: at its
  initial rank, lora_E [r, 1] too (`ranknum` is a parameter that never trains); ia3: one vector, over
  d_in if the target is an `ffn_out` layer (PEFT's `feedforward_modules`: its input is scaled, as in
  the paper's formula), over d_out everywhere else; none: every parameter of the stock model.
* bias `lora_only`: the biases of the targets. bias `all`, as in PEFT: every parameter named `*.bias`
  outside modules_to_save and their frozen originals: those of embeddings, layers, layer norms and, if a
  pretrained pooler stays frozen (head: linear), of the pooler.
* head full: all of `head_modules`. linear: the last layer, `[D, C]` and C biases; RoBERTa's, XLM-R's and
  MPNet's dense is the identity, frozen with its bias; BERT's and ALBERT's pooler and ModernBERT's head are the
  pretrained ones, frozen. bottleneck of width b: dense = W0 + UV with U [D, b] and V [b, D] trained, its bias [D],
  if any, trained, W0 frozen (the identity, or the pretrained one), and the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from submillion.config import Head, Method
from submillion.planning.architectures import (
    FAMILIES,
    Architecture,
    dense_bias,
    encoder_biases,
    head_parameters,
    n_parameters,
)

Bias = Literal["none", "all", "lora_only"]

DEFAULT_HEAD_WIDTH = 32  # 53,000 parameters at D = 768: a twelfth of the full head


@dataclass(frozen=True)
class HeadSize:
    """What is on top of the encoder: its kind, the number of classes C, and the bottleneck's width (else None)."""

    kind: Head
    n_classes: int
    width: int | None = None


@dataclass(frozen=True)
class Target:
    """A linear layer that gets an adapter.

    `module` is its full name in the stock model, `site` its key in the plan's ranks, `layer` counts from
    0 at the bottom, `feed_forward` says that it is an `ffn_out` layer. `rank` and `alpha` are 0 with ia3. `n_biases`
    counts the entries of its bias; older files lack it, which means d_out.
    """

    module: str
    site: str
    layer: int
    d_in: int
    d_out: int
    feed_forward: bool
    rank: int = 0
    alpha: float = 0.0
    n_biases: int | None = None


def target_params(method: Method, target: Target) -> int:
    """Return the trainable parameters that `method` adds to one linear layer.

    >>> target_params("lora", Target("m", "query", 0, d_in=768, d_out=768, feed_forward=False, rank=11))
    16896
    """
    low_rank = target.rank * (target.d_in + target.d_out)
    match method:
        case "lora":
            return low_rank
        case "dora":
            return low_rank + target.d_out
        case "adalora":
            return low_rank + target.rank
        case "ia3":
            return target.d_in if target.feed_forward else target.d_out
        case "none":
            return 0


def step(method: Method, targets: Sequence[Target]) -> int:
    """Return what one more rank at every target costs; 0 for methods without ranks."""
    return sum(
        target_params(method, replace(target, rank=target.rank + 1)) - target_params(method, target)
        for target in targets
    )


def bias_params(arch: Architecture, bias: Bias, targets: Sequence[Target], head: Head) -> int:
    """Return the trainable biases outside the adapters and outside the head's saved modules."""
    match bias:
        case "none":
            return 0
        case "lora_only":
            return sum(target.d_out if target.n_biases is None else target.n_biases for target in targets)
        case "all":
            return encoder_biases(arch) + (dense_bias(arch) if head == "linear" and keeps_pooler(arch) else 0)


def head_params(arch: Architecture, head: HeadSize) -> int:
    """Return the trainable parameters of a head."""
    match head.kind:
        case "full":
            return head_parameters(arch, head.n_classes)
        case "linear":
            return last_layer_params(arch, head.n_classes)
        case "bottleneck":
            return _low_rank(arch, head) + dense_bias(arch) + last_layer_params(arch, head.n_classes)


def keeps_pooler(arch: Architecture) -> bool:
    """Say whether the checkpoint has the head's dense layer, which stays frozen below a linear head."""
    return arch.built is None and FAMILIES[arch.family].pretrained


def last_layer_params(arch: Architecture, n_classes: int) -> int:
    """Return the parameters of the last layer: weights [C, D] and C biases."""
    per_class = arch.width + 1 if arch.built is None else arch.built.head_per_class
    return per_class * n_classes


def head_problems(arch: Architecture, head: HeadSize) -> list[str]:
    """Return why a family cannot have this head, as messages; none if it can."""
    problems = []
    if head.n_classes < 2:
        problems.append(f"the number of classes is {head.n_classes}: a classifier needs at least 2")
    if head.kind != "full" and arch.built is not None:
        problems.append(
            f"model.head is {head.kind}, but only the stock head of {arch.name} ({arch.family}) "
            "is known; use model.head: full"
        )
    elif head.kind == "linear" and (activation := FAMILIES[arch.family].activation):
        problems.append(
            f"model.head is linear, but {arch.name} ({arch.family}) has a {activation} before "
            "its last layer, which cuts negative features unless a dense layer trains before it; "
            "use model.head: bottleneck or full"
        )
    if head.width is not None and head.width > arch.width // 2:
        problems.append(
            f"model.head_width is {head.width}: allowed are 1 to {arch.width // 2} for {arch.name}, half its width; "
            "beyond, head: full costs less"
        )
    return problems


def all_params(arch: Architecture, method: Method, targets: Sequence[Target], head: HeadSize) -> int:
    """Return how many parameters the model holds in training, frozen ones included.

    PEFT keeps the original of each module that it saves, so the head counts twice, except with method none.
    """
    stock = n_parameters(arch, head.n_classes)
    if method == "none":
        return stock
    rank_counters = len(targets) if method == "adalora" else 0
    adapters = sum(target_params(method, target) for target in targets)
    return stock + adapters + rank_counters + _saved_copies(arch, head)


def _saved_copies(arch: Architecture, head: HeadSize) -> int:
    if head.kind == "linear" and keeps_pooler(arch):  # the pooler is not copied
        return last_layer_params(arch, head.n_classes)
    return head_parameters(arch, head.n_classes) + _low_rank(arch, head)


def _low_rank(arch: Architecture, head: HeadSize) -> int:
    """U [D, b] and V [b, D] of the bottleneck; 0 for the other kinds."""
    return 2 * arch.width * (head.width or 0)
