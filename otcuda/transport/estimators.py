# SPDX-License-Identifier: Apache-2.0
"""chi2 of measured cells: without bias, with an interval (docs/transport.md, eq. 4 to 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_Z95 = 1.959964  # half width of a 95 % interval in standard deviations


@dataclass(frozen=True)
class Chi2:
    """An estimate of chi2 = sum_i (mass_i - nu_i)^2 / nu_i.

    Attributes:
        value: unbiased, so it may fall below 0 when the truth is near 0; nan without samples.
        interval: 95 % interval; the lower end is never below 0.
        samples: fresh samples behind it.
        exact: the whole of a finite source was scanned: no error at all.
    """

    value: float
    interval: tuple[float, float]
    samples: int
    exact: bool = False

    def __float__(self) -> float:
        return self.value


def chi2_from_record(record: dict[str, Any]) -> Chi2:
    """What `dataclasses.asdict` made of an estimate, and JSON of that."""
    return Chi2(**(record | {"interval": tuple(record["interval"])}))


def chi2_from_counts(
    counts: np.ndarray, nu: np.ndarray, inside: np.ndarray | None = None, group: int = 256
) -> Chi2:
    """Unbiased chi2 of samples that fell into cells, eq. (5).

    Pairs of different samples are what is counted: the plain sum (c_i/M - nu_i)^2/nu_i also counts
    each sample with itself, which adds about (N-1)/M. The variance is that of a U-statistic of
    order two.

    Args:
        counts: samples in each cell, [N].
        nu: weights, [N], all positive, sum 1.
        inside: where samples come in independent groups of samples that are not independent: sum
            over the groups of the squared counts, [N]; None for independent samples. Then only
            pairs from different groups count, and the interval is that of as many independent
            samples as would have left as many pairs in one cell by chance.
        group: samples of such a group.
    """
    c = counts.astype(np.float64)
    M = float(c.sum())
    if M < 2:
        return Chi2(math.nan, (0.0, math.inf), int(M))
    if inside is not None:
        return _from_groups(c, nu, inside, group)
    pairs = M * (M - 1)
    value = float((c * (c - 1) / nu).sum() / pairs - 1)
    # Unbiased moments: r1 = sum m_i^2/nu_i = 1 + chi2, r2 = sum m_i^2/nu_i^2, r3 = sum
    # m_i^3/nu_i^2.
    r1 = value + 1
    r2 = float((c * (c - 1) / nu**2).sum() / pairs)
    r3 = float((c * (c - 1) * (c - 2) / nu**2).sum() / (pairs * max(M - 2, 1)))
    # At the solution r2 = N; few samples would see none of it, so it is never taken for less.
    of_pairs = max(r2 - r1**2, len(c) - 1.0)
    of_cells = max(r3 - r1**2, 0.0)
    spread = _Z95 * math.sqrt(2 * of_pairs / pairs + 4 * of_cells / M)
    return Chi2(value, (max(0.0, value - spread), max(0.0, value + spread)), int(M))


def _from_groups(c: np.ndarray, nu: np.ndarray, inside: np.ndarray, group: int) -> Chi2:
    M = float(c.sum())
    pairs = M * M - M * group
    if pairs <= 0:
        return Chi2(math.nan, (0.0, math.inf), int(M))
    value = float(((c * c - inside) / nu).sum() / pairs - 1)
    # A large group holds pairs in any case: what independent samples would have is set aside.
    by_chance = float((c * (c - 1) / nu).sum()) * (group - 1) / (M - 1)
    clumping = max(1.0, (float((inside / nu).sum()) - by_chance) / float((c / nu).sum()))
    plain = chi2_from_counts(c / clumping, nu)
    half = (plain.interval[1] - plain.value) if plain.interval[1] > 0 else math.inf
    return Chi2(value, (max(0.0, value - half), max(0.0, value + half)), int(M))


def chi2_exact(mass: np.ndarray, nu: np.ndarray, samples: int) -> Chi2:
    """chi2 of known masses, eq. (4)."""
    value = float(((mass - nu) ** 2 / nu).sum())
    return Chi2(value, (value, value), samples, exact=True)


def samples_to_certify(N: int, chi2: float) -> int:
    """Fresh samples that make the error of an estimate a tenth of `chi2`; at least 4096."""
    return max(4096, math.ceil(10 * math.sqrt(2 * N) / chi2))
