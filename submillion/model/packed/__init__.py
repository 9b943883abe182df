"""The fast forward and backward pass over unpadded tokens, through the modules transformers and PEFT built.

`prepare` finds the modules once, `encode` runs one batch, `lower` the part of it that may be kept. Laws: the stock
padded model's results within 1e-5 in float32; dropout at the same places with the same p. The head is the caller's.
`encode_mixed` and `encode_several` run several models at once if they share their frozen weights.
"""

from submillion.model.packed.forward import attention_kernels, encode, lower
from submillion.model.packed.mixing import encode_mixed, encode_several, mixable
from submillion.model.packed.structure import Packed, prepare, supported

__all__ = [
    "Packed",
    "attention_kernels",
    "encode",
    "encode_mixed",
    "encode_several",
    "lower",
    "mixable",
    "prepare",
    "supported",
]
