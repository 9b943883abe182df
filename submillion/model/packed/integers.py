"""Products of bfloat16 rows with frozen weights in int8, forward and of the input's gradient.

Each row of the left side and each column of the weight has its own scale, by its largest magnitude (vector-wise
quantisation: Dettmers et al. 2022, section 2.1). Weights are frozen, so the one product that int8 spoils, the weight's
gradient, does not exist (SwitchBack: Wortsman et al. 2023, section 2.2). Sums are exact: a row gives the same result in
every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from submillion.model.packed import native

_MOST = 127


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A weight [K, N] in int8, packed for `native.multiply` or as [N, K], and what an integer of each column stands
    for, float32 [N]."""

    values: torch.Tensor
    scales: torch.Tensor
    is_packed: bool

    @classmethod
    def of(cls, matrix: torch.Tensor) -> IntegerWeight:
        """Return a weight [K, N] of floats, rounded to nearest."""
        values, scales = _quantised(matrix.t())
        fits = native.fits_product(values, len(values))
        return cls(native.packed(values.t()) if fits else values, scales, fits)

    def product(self, x: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        """Return x [T, K] times the weight plus start, a bias [N] or rows [T, N], which are overwritten; bfloat16.

        A row that is not all finite gives NaN.
        """
        rows, row_scales = native.quantised(x) if native.available() and x.stride(1) == 1 else _quantised(x)
        scales = (row_scales, self.scales)
        if self.is_packed:
            return native.multiply(rows, self.values, start, scales)
        int_mm: Any = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
        sums = int_mm(rows, self.values.t())
        if native.available() and sums.shape[1] % 2 == 0:
            return native.rescaled(sums, scales, start)
        y = sums.float() * (row_scales[:, None] * self.scales)
        return (y if start is None else y + start.float()).to(x.dtype)


def _quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of floats as int8, and their scales; what `native.quantised` computes."""
    x = x.float()
    largest = x.abs().amax(1)
    by = torch.where(largest > 0, _MOST / largest, 0.0)
    by = torch.where(by.isfinite(), by, 0.0)  # of rows that are not finite, or subnormal
    scales = torch.where(by > 0, largest / _MOST, 0.0)
    scales = torch.where(largest.isfinite(), scales, torch.nan)
    values = torch.where(largest.isfinite()[:, None], x, 0.0) * by[:, None]
    return values.round().to(torch.int8).contiguous(), scales
