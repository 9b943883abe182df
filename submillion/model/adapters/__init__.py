"""What trains in a stock model: PEFT's adapters, some biases and the head, exactly as a `Plan` says.

`injection` builds and counts, `heads` makes the three kinds of head, `adalora` moves ranks while
training, `saving` writes an adapter that plain transformers and PEFT read back, `reuse` starts from
one and merges one. Which layers get what is decided in `planning`.
"""

from submillion.model.adapters.adalora import load_method_state, method_state, orthogonality_loss, reallocate
from submillion.model.adapters.heads import Bottleneck, head_logits
from submillion.model.adapters.injection import (
    hold_frozen_in,
    inject,
    is_head,
    stock,
    trainable_parameters,
    verify,
)
from submillion.model.adapters.reuse import merged, start_from
from submillion.model.adapters.saving import load, refuse_unsaved, save

__all__ = [
    "Bottleneck",
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
