"""What trains in a stock model: PEFT's adapters, some biases and the head, exactly as a `Plan` says.

`injection` builds and counts, and moves AdaLoRA's ranks while training; `heads` makes the three kinds of head; `saving`
writes an adapter that plain transformers and PEFT read back, starts from one and merges one. Which layers get what is
decided in `planning`.
"""

from submillion.model.adapters.heads import head_logits
from submillion.model.adapters.injection import (
    hold_frozen_in,
    inject,
    is_head,
    load_method_state,
    method_state,
    orthogonality_loss,
    reallocate,
    stock,
    trainable_parameters,
    verify,
)
from submillion.model.adapters.saving import load, merged, refuse_unsaved, save, start_from

__all__ = [
    "head_logits",
    "hold_frozen_in",
    "inject",
    "is_head",
    "load",
    "load_method_state",
    "merged",
    "method_state",
    "orthogonality_loss",
    "reallocate",
    "refuse_unsaved",
    "save",
    "start_from",
    "stock",
    "trainable_parameters",
    "verify",
]
