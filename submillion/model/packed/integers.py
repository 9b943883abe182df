"""Products of bfloat16 rows with frozen weights in int8, forward and of the input's gradient.

Each row of the left side and each column of the weight has its own scale, by its largest magnitude (vector-wise
quantisation: Dettmers et al. 2022, section 2.1). Weights are frozen, so the one product that int8 spoils, the weight's
gradient, does not exist (SwitchBack: Wortsman et al. 2023, section 2.2). Sums are exact: a row gives the same result in
every batch. x86 processors before VNNI add two products in 16 bits; there, weights have 7 bits, for which these
suffice.

A few columns of a norm's output are many times as large as the rest, in every row: scaled by a row's largest magnitude,
the others are rounded coarsely. If the norm is known, such columns are made smaller, and the weight's rows larger by as
much (SmoothQuant: Xiao et al. 2023, section 4), by powers of two, which round neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from submillion.model.packed import native, native_products

_MOST, _MOST_OF_SEVEN_BITS = 127, 63
# SmoothQuant's alpha: how much of its input's unevenness a weight takes over. With norms' parameters in place of
# observed rows it left smaller errors than 0.5 in all-mpnet-base-v2 and all-MiniLM-L6-v2 (docs/log.md).
_TAKEN_OVER = 0.75
_MOST_HALVINGS = 8.0  # of a column


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A weight [K, N] in int8, packed for `native_products.multiply` or as [N, K], the value of an integer in each
    column, float32 [N], and the factors of its input's columns, bfloat16 [K], or None."""

    values: torch.Tensor
    scales: torch.Tensor
    is_packed: bool
    column_factors: torch.Tensor | None = None

    @classmethod
    def of(cls, matrix: torch.Tensor, reach: torch.Tensor | None = None) -> IntegerWeight:
        """Return a weight [K, N] of floats, rounded to nearest.

        reach: about how far from 0 each column of its input gets, float32 [K], if known.
        """
        factors = None if reach is None else _column_factors(reach, matrix)
        weight = matrix.t() if factors is None else matrix.t().float() / factors
        values, scales = _quantised(weight)
        if native_products.fits_weight(torch.int8, *matrix.shape):
            return cls(native_products.packed(values.t()), scales, True, factors)
        return cls(*_quantised(weight, _most_of_weights()), False, factors)

    def product(self, x: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        """Return x [T, K] times the weight plus start, a bias [N] or rows [T, N], which are overwritten; bfloat16.

        A row that is not all finite gives NaN.
        """
        x = x if self.column_factors is None else x * self.column_factors
        if self.is_packed:
            x = x if native_products.fits_integers(x) else x.clone(memory_format=torch.contiguous_format)
            return native_products.multiply(x, self.values, start, self.scales)
        rows, row_scales = native_products.quantised(x) if native_products.fits_quantised(x) else _quantised(x)
        sums = _int_mm(rows, self.values.t())
        if native.available():
            return native_products.rescaled(sums, (row_scales, self.scales), start)
        y = sums.float() * (row_scales[:, None] * self.scales)
        return (y if start is None else y + start.float()).to(x.dtype)


def _column_factors(reach: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return powers of two up to 1, bfloat16 [K], by which columns that reach this far become more like the median one.

    None is made larger: a value beyond its expected reach would become the row's largest magnitude.
    """
    log_reach, log_weight = (
        each.float().nan_to_num().clamp_min(torch.finfo(torch.float32).tiny).log2()
        for each in (reach, matrix.abs().amax(1))
    )
    powers = (1 - _TAKEN_OVER) * log_weight - _TAKEN_OVER * log_reach
    return (powers - powers.median()).clamp(-_MOST_HALVINGS, 0).round().exp2().bfloat16()


def _int_mm(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    product: Any = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
    return product(x, matrix)


def is_exact() -> bool:
    """Return whether products of 8 bits are exact here, so that weights need not have 7."""
    return native.has_tiles() or native.has_integers() or _most_of_weights() == _MOST


@cache
def _most_of_weights() -> int:
    """Return the largest integer of a weight for which torch's products are exact here."""
    largest = torch.full((32, 64), _MOST, dtype=torch.int8)
    is_exact = bool((_int_mm(largest, largest.t()) == 64 * _MOST**2).all())
    return _MOST if is_exact else _MOST_OF_SEVEN_BITS


def _quantised(x: torch.Tensor, most: int = _MOST) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of floats as integers up to `most`, and their scales: but for ties as `native_products.quantised`."""
    x = x.float()
    largest = x.abs().amax(1)
    factors = torch.where(largest > 0, most / largest, 0.0)
    factors = torch.where(factors.isfinite(), factors, 0.0)  # of rows that are not finite, or subnormal
    scales = torch.where(factors > 0, largest / most, 0.0)
    scales = torch.where(largest.isfinite(), scales, torch.nan)
    values = torch.where(largest.isfinite()[:, None], x, 0.0) * factors[:, None]
    return values.round().to(torch.int8).contiguous(), scales
