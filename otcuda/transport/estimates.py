# SPDX-License-Identifier: Apache-2.0
"""What a fit by "pools" will take, before it starts: bytes of memory, samples."""

from __future__ import annotations

from dataclasses import dataclass

from otcuda.transport import pools

_LIST_PARTS = 8  # of csrc/common/list_newton.h: each has sums of its own over the cells
_ACTIVE = 5  # weights of the Hessian that a sample keeps; measured 3 to 6


@dataclass(frozen=True)
class Estimate:
    """What a fit takes.

    Attributes:
        bytes: memory at its peak, targets included, the interpreter and its libraries not.
        samples: that the heights will be fitted on if all goes as planned.
        product: whether they are products of halves.
    """

    bytes: int
    samples: int
    product: bool


def estimate(N: int, D: int, chi2: float = 0.02, named: bool = True) -> Estimate:
    """Memory and samples of a fit by "pools".

    Args:
        N: targets.
        D: dimension.
        chi2: goal.
        named: whether the source is a named one; the samples of others are kept.
    """
    product = pools.takes_products(N, D, named)
    M, K = pools.planned_samples(N, chi2, product), min(pools._K, N)
    lists = M * (8 * K + 4)
    newton = M * (8 * _ACTIVE + 8) + N * (16 * 8 + 8 * _LIST_PARTS)
    # The last pool, half of all, is joined to the others, which are copied for that.
    growing = lists + lists // 2
    targets = 4 * N * D * (4 if product else 3)
    kept = 0 if named else 4 * M * D
    return Estimate(max(growing, lists + newton) + targets + kept, M, product)
