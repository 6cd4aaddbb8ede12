# SPDX-License-Identifier: Apache-2.0
"""Points to centres of given capacity: python examples/balanced_assignment.py.

Of all ways to fill the centres, the one with the least total squared distance: optimal transport
from the points onto the weighted centres. Each point is told its centre by one number a centre,
which holds for new points too.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from drawing import COLOURS, Panel, side_by_side

from otcuda import power_argmax
from otcuda.transport import SemiDiscreteOT


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="balanced assignment")
    parser.add_argument("--points", type=int, default=3000)
    parser.add_argument("--output", default="assignment.png")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.6, (options.points // 3, 2)) for c in (-1, 0, 1.5)])
    centres = rng.uniform(-2.5, 2.5, (12, 2))
    capacity = np.array([1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 6]) / 24
    ot = SemiDiscreteOT(centres, capacity, source=x)
    ot.fit(chi2=1e-4)
    near = power_argmax(x, centres, -(centres**2).sum(1) / 2)[1]
    found, panels = {}, []
    for name, index in (("nearest", near), ("balanced", ot.assign(x))):
        share = np.bincount(index, minlength=12) / len(x)
        cost = float(((x - centres[index]) ** 2).sum(1).mean())
        found[name] = {"over": float((share / capacity).max()), "cost": cost}
        fullest = f"{100 * found[name]['over']:.0f} %"
        print(
            f"{name}: fullest centre at {fullest} of its capacity, mean squared distance {cost:.3f}"
        )
        panel = Panel(-3.2, 3.2, 360, f"{name}: fullest at {fullest}")
        panel.dots(x, [COLOURS[i] for i in index]).dots(centres, "black", 4)
        panels.append(panel.dots(centres, COLOURS, 3).image())
    side_by_side(panels, options.output)
    return found


if __name__ == "__main__":
    main()
