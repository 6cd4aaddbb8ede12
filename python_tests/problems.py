# SPDX-License-Identifier: Apache-2.0
"""Transport problems with known answers, float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Known:
    """A problem and its heights, with sum nu h = 0."""

    name: str
    y: np.ndarray
    nu: np.ndarray
    source: str
    heights: np.ndarray

    def __str__(self) -> str:
        return self.name


def known(name, y, nu, source, heights) -> Known:
    return Known(name, y, nu, source, heights - nu @ heights)


def quantile(source, p):
    return np.array([NormalDist().inv_cdf(q) for q in p]) if source == "normal" else np.asarray(p)


def line(N, source, seed=0) -> Known:
    """Cells of a line are intervals: neighbours are equal at the quantile of the mass below."""
    rng = np.random.default_rng(seed)
    y, nu = rng.normal(size=N), rng.uniform(0.2, 1, N)
    nu /= nu.sum()
    order = np.argsort(y)
    h = np.zeros(N)
    for left, right, below in zip(order, order[1:], np.cumsum(nu[order]), strict=False):
        h[right] = h[left] - (y[right] - y[left]) * quantile(source, [below])[0]
    return known(f"line {N} {source}", y[:, None], nu, source, h)


def two_targets(weight, D, seed=0) -> Known:
    """A half-space of the normal law: h_1 - h_2 = |y_1 - y_2| Phi^-1(nu_1)."""
    y = np.random.default_rng(seed).normal(size=(2, D))
    nu = np.array([weight, 1 - weight])
    h = np.array([np.linalg.norm(y[0] - y[1]) * NormalDist().inv_cdf(weight), 0.0])
    return known(f"two targets {weight} D={D}", y, nu, "normal", h)


def lattice(k, D, seed=0) -> Known:
    """A stretched lattice in the cube: cells are boxes, h = -1/2 (y-b)' A^-1 (y-b)."""
    rng = np.random.default_rng(seed)
    A, b = rng.uniform(0.5, 2, D), rng.normal(size=D)
    c = np.array(list(product((np.arange(k) + 0.5) / k, repeat=D)))
    N = len(c)
    h = -(A * c * c).sum(1) / 2
    return known(f"lattice {k}^{D}", A * c + b, np.full(N, 1 / N), "uniform", h)


def product_of_lines(N, M, source, seed=0) -> Known:
    """Targets (u_a, v_b) with weights nu_a nu_b: heights add."""
    u, v = line(N, source, seed), line(M, source, seed + 1)
    pairs = list(product(range(N), range(M)))
    y = np.array([[u.y[a, 0], v.y[b, 0]] for a, b in pairs])
    nu = np.array([u.nu[a] * v.nu[b] for a, b in pairs])
    h = np.array([u.heights[a] + v.heights[b] for a, b in pairs])
    return known(f"product {N}x{M} {source}", y, nu, source, h)


def cross(D) -> Known:
    """Targets +-e_k with equal weights: equal heights."""
    y = np.concatenate([np.eye(D), -np.eye(D)])
    return known(f"cross D={D}", y, np.full(2 * D, 0.5 / D), "normal", np.zeros(2 * D))


KNOWN = [
    two_targets(0.2, 1),
    two_targets(0.9, 3),
    two_targets(0.5, 40),
    lattice(4, 2),
    lattice(3, 3),
    lattice(2, 6),
    product_of_lines(4, 5, "normal"),
    product_of_lines(5, 3, "uniform"),
    cross(2),
    cross(16),
    cross(256),
]


def clusters(N, D, seed=0, modes=20) -> np.ndarray:
    """Targets in clusters of uneven size and width, float32."""
    rng = np.random.default_rng(seed)
    mode = rng.choice(modes, N, p=rng.dirichlet(np.ones(modes)))
    centre, width = 2 * rng.standard_normal((modes, D)), 0.05 + 0.5 * rng.random(modes)
    return (centre[mode] + width[mode, None] * rng.standard_normal((N, D))).astype(np.float32)


def ring(modes=8, each=32, radius=2.0, width=0.05, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians on a circle, [modes * each, 2], and their centres, [modes, 2]."""
    turn = 2 * np.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    noise = np.random.default_rng(seed).standard_normal((modes, each, 2))
    return (centres[:, None] + width * noise).reshape(-1, 2), centres
