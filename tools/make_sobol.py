# SPDX-License-Identifier: Apache-2.0
"""Searches the table of csrc/common/sobol_samples.h and prints it: python tools/make_sobol.py.

A dimension is a primitive polynomial over GF(2) and as many odd numbers as its degree (Sobol 1967).
Of a few dozen random choices of the numbers we take the one whose planes with all dimensions before
are most even: least sum of the t of the (t, m, 2)-nets of their first 2^m points.
"""

from __future__ import annotations

import random

DIMENSIONS = 32
SIZES = (3, 5, 7, 9, 11, 13)  # m
CHOICES = 48
BITS = 32


def times_x(value: int, polynomial: int, degree: int) -> int:
    """`value` times x modulo the polynomial."""
    value <<= 1
    return value ^ polynomial if value >> degree & 1 else value


def is_primitive(polynomial: int, degree: int) -> bool:
    """Whether x has the order 2^degree - 1 modulo the polynomial."""
    value, order = times_x(1, polynomial, degree), 1
    while value != 1 and order < 1 << degree:
        value, order = times_x(value, polynomial, degree), order + 1
    return order == (1 << degree) - 1 and value == 1


def primitive_polynomials() -> list[tuple[int, int]]:
    """(polynomial, degree) in order, constant term and leading one included."""
    found: list[tuple[int, int]] = []
    degree = 1
    while len(found) < DIMENSIONS - 1:
        for polynomial in range((1 << degree) + 1, 2 << degree, 2):
            if is_primitive(polynomial, degree):
                found.append((polynomial, degree))
        degree += 1
    return found[: DIMENSIONS - 1]


def directions(polynomial: int, degree: int, first: list[int]) -> list[int]:
    """Direction numbers as BITS-bit fractions, of input bits 0, 1, ..."""
    m = list(first)
    while len(m) < BITS:
        new = m[-degree] ^ (m[-degree] << degree)
        for k in range(1, degree):
            if polynomial >> (degree - k) & 1:
                new ^= m[-k] << k
        m.append(new)
    return [each << (BITS - 1 - k) for k, each in enumerate(m)]


def rows(v: list[int], m: int) -> list[int]:
    """Generator matrix of the first 2^m points: digit by digit, the input bits that enter it."""
    return [sum((v[c] >> (BITS - 1 - r) & 1) << c for c in range(m)) for r in range(m)]


def reduced(row: int, basis: list[int]) -> int:
    """What is left of a row without a basis; 0 if it depends on it."""
    for each in basis:
        row = min(row, row ^ each)
    return row


def t_value(a: list[int], b: list[int], m: int) -> int:
    """The t of the (t, m, 2)-net with these rows."""
    basis: list[int] = []
    least = m + 1
    for taken in range(m + 1):
        grown = list(basis)
        for more in range(m - taken + 1):
            if taken + more >= least:
                break
            if more < m:
                row = reduced(b[more], grown)
                if row == 0:
                    least = taken + more + 1
                    break
                grown.append(row)
        if taken < m:
            row = reduced(a[taken], basis)
            if row == 0:
                least = min(least, taken + 1)
                break
            basis.append(row)
    return m - (least - 1)


def main() -> None:
    """Prints a row a dimension."""
    rng = random.Random(1967)
    chosen = [{m: rows([1 << (BITS - 1 - k) for k in range(BITS)], m) for m in SIZES}]
    for polynomial, degree in primitive_polynomials():
        best = None
        tried = set()
        for _ in range(CHOICES):
            first = [2 * rng.randrange(1 << k) + 1 for k in range(degree)]
            if tuple(first) in tried:
                continue
            tried.add(tuple(first))
            v = directions(polynomial, degree, first)
            mine = {m: rows(v, m) for m in SIZES}
            score = 0
            for other in chosen:
                score += sum(t_value(mine[m], other[m], m) ** 2 for m in SIZES)
                if best is not None and score >= best[0]:
                    break
            if best is None or score < best[0]:
                best = score, first, mine
        chosen.append(best[2])
        numbers = ", ".join(map(str, best[1]))
        print(f"    {{{degree}, {polynomial}, {{{numbers}}}}},", flush=True)


if __name__ == "__main__":
    main()
