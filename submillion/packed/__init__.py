"""The fast forward and backward pass over unpadded tokens, through the modules transformers and PEFT built.

`prepare` finds the modules once, `encode` runs a batch, `lower` its part that may be kept. Laws: the stock
padded model's results within 1e-5 in float32; dropout at the same places with the same p. The head stays with
the caller.
"""

from submillion.packed.forward import encode, lower
from submillion.packed.structure import Packed, prepare, supported

__all__ = ["Packed", "encode", "lower", "prepare", "supported"]
