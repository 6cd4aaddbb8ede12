# SPDX-License-Identifier: Apache-2.0
"""A codebook without dead codes: python examples/balanced_codebook.py.

Lloyd's algorithm from a bad start leaves most codes without a point, for ever. If every code must
take its share of the points, which is optimal transport from the points onto the codes, none dies;
a few rounds of plain Lloyd from there give a lower error than from the start.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from drawing import COLOURS, GREY, Panel, side_by_side

from otcuda import power_argmax
from otcuda.transport import SemiDiscreteOT


def latents(n: int, seed: int = 0) -> np.ndarray:
    """Points in 20 clusters of uneven size, [n, 2]."""
    rng = np.random.default_rng(seed)
    mode = rng.choice(20, n, p=rng.dirichlet(np.ones(20)))
    centre = 2 * rng.standard_normal((20, 2))
    return (centre[mode] + 0.2 * rng.standard_normal((n, 2))).astype(np.float32)


def nearest(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Code of each point: the heights -|y|^2/2 make cells of nearest points."""
    return power_argmax(x, codes, -(codes**2).sum(1) / 2)[1]


def balanced(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Code of each point, each code taking about as many."""
    ot = SemiDiscreteOT(codes, source=x)
    ot.fit(chi2=0.05, max_samples=3_000 * len(x))
    return ot.assign(x)


def lloyd(x: np.ndarray, codes: np.ndarray, assign: Any, rounds: int) -> np.ndarray:
    """Codes moved to the mean of their points; one without points stays where it is."""
    for _ in range(rounds):
        index = assign(x, codes)
        hits = np.bincount(index, minlength=len(codes))
        sums = np.stack([np.bincount(index, x[:, d], len(codes)) for d in range(x.shape[1])], 1)
        codes = np.where(hits[:, None] > 0, sums / np.maximum(hits, 1)[:, None], codes)
        codes = codes.astype(np.float32)
    return codes


def judged(x: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Codes that no point is nearest to, codes in use (perplexity), and mean square error."""
    index = nearest(x, codes)
    share = np.bincount(index, minlength=len(codes)) / len(x)
    used = share[share > 0]
    return {
        "dead": int((share == 0).sum()),
        "perplexity": float(np.exp(-(used * np.log(used)).sum())),
        "error": float(((x - codes[index]) ** 2).sum(1).mean()),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="codebooks with and without balance")
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--codes", type=int, default=128)
    parser.add_argument("--output", default="codebook.png")
    options = parser.parse_args(arguments)
    x = latents(options.points)
    bad = (x[0] + 1e-2 * np.random.default_rng(1).standard_normal((options.codes, 2))).astype("f4")
    after = lloyd(x, bad, balanced, 4)
    books = {
        "Lloyd": lloyd(x, bad, nearest, 20),
        "balanced, then Lloyd": lloyd(x, after, nearest, 16),
    }
    found, panels = {}, []
    for name, codes in books.items():
        found[name] = judged(x, codes)
        print(
            f"{name}: {found[name]['dead']} of {options.codes} codes dead, perplexity "
            f"{found[name]['perplexity']:.0f}, mean square error {found[name]['error']:.4f}"
        )
        panel = Panel(-5.5, 5.5, 360, f"{name}: {found[name]['dead']} of {options.codes} dead")
        panels.append(panel.dots(x, GREY, 0.8).dots(codes, COLOURS[1], 2).image())
    side_by_side(panels, options.output)
    return found


if __name__ == "__main__":
    main()
