# SPDX-License-Identifier: Apache-2.0
"""Flow matching with and without the coupling: python examples/flow_matching.py [--data digits].

A flow is trained on straight lines from noise to data. Drawn independently the lines cross, and the
flow has to bend; coupled by optimal transport with the whole data set they do not, and a few steps
of Euler are enough. Needs torch, and scikit-learn for the digits.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from drawing import COLOURS, Panel, side_by_side
from PIL import Image

from otcuda.transport import SemiDiscreteOT

EULER = (1, 2, 4, 8, 16, 64)  # the last one counts as exact


def moons(N: int) -> np.ndarray:
    """Two half moons, [N, 2]."""
    rng = np.random.default_rng(0)
    turn, upper = np.pi * rng.random(N), rng.random(N) < 0.5
    side = np.where(upper, 1, -1)
    y = np.stack([np.cos(turn) - 0.5 * side, side * (np.sin(turn) - 0.25)], 1)
    return (1.5 * y + 0.05 * rng.standard_normal((N, 2))).astype(np.float32)


def digits() -> np.ndarray:
    """Pictures of 8 x 8 pixels, [1797, 64], in [-1, 1], softened by a little noise."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit("the digits are scikit-learn's: pip install scikit-learn") from error
    y = load_digits().data / 8 - 1
    return (y + 0.05 * np.random.default_rng(0).standard_normal(y.shape)).astype(np.float32)


def train(y: torch.Tensor, pairs: Any, steps: int) -> torch.nn.Module:
    """Velocity field v(x, t) fitted to x1 - x0 on the lines between pairs."""
    torch.manual_seed(0)
    D, width = y.shape[1], 128 if y.shape[1] == 2 else 256
    layers = [torch.nn.Linear(D + 1, width), torch.nn.SiLU()]
    for _ in range(2):
        layers += [torch.nn.Linear(width, width), torch.nn.SiLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, D))
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        x0, x1 = next(pairs)
        t = torch.rand(len(x0), 1)
        x = torch.cat([x0 + t * (x1 - x0), t], 1)
        loss = (model(x) - (x1 - x0)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model


@torch.no_grad()
def paths(model: torch.nn.Module, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Points on the way by Euler's method, [steps + 1, n, D]."""
    found = [x]
    for step in range(steps):
        t = torch.full((len(x), 1), step / steps)
        found.append(found[-1] + model(torch.cat([found[-1], t], 1)) / steps)
    return torch.stack(found)


def bending(path: torch.Tensor) -> float:
    """Mean square of velocity minus its mean along a path, over that of the mean; 0 is straight."""
    velocity = path.diff(dim=0) * (len(path) - 1)
    mean = velocity.mean(0)
    return float((velocity - mean).square().sum() / (len(velocity) * mean.square().sum()))


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|: 0 for the same law."""
    cross, own = torch.cdist(a, b).mean(), torch.cdist(a, a).sum() / (len(a) * (len(a) - 1))
    other = torch.cdist(b, b).sum() / (len(b) * (len(b) - 1))
    return float(2 * cross - own - other)


def independent(y: torch.Tensor, batch: int):
    """Pairs of noise and data that know nothing of each other."""
    while True:
        yield torch.randn(batch, y.shape[1]), y[torch.randint(len(y), (batch,))]


def picture(y: torch.Tensor, found: dict[str, torch.nn.Module], x: torch.Tensor, to: str) -> None:
    """Paths in the plane, or digits after few steps."""
    images = []
    for name, model in found.items():
        if y.shape[1] == 2:
            way = paths(model, x[:300], 64).transpose(0, 1)
            panel = Panel(-3.5, 3.5, 300, f"{name}: paths of the flow").paths(way)
            images.append(panel.dots(way[:, 0], COLOURS[0]).dots(way[:, -1], COLOURS[1]).image())
            way = paths(model, x[:1000], 2)[-1]
            panel = Panel(-3.5, 3.5, 300, f"{name}: after 2 steps").dots(y[:1000])
            images.append(panel.dots(way, COLOURS[1]).image())
            continue
        rows = [paths(model, x[:12], k)[-1] for k in (1, 2, 4, 64)]
        tiles = torch.stack(rows).reshape(4, 12, 8, 8).permute(0, 2, 1, 3).reshape(32, 96)
        grey = ((1 + tiles.clamp(-1, 1)) * 127.5).byte().numpy()
        panel = Panel(0, 1, 288, f"{name}: 1, 2, 4, 64 steps").image().crop((0, 0, 288, 114))
        panel.paste(
            Image.fromarray(255 - grey).resize((288, 96), Image.Resampling.NEAREST), (0, 18)
        )
        images.append(panel)
    side_by_side(images, to)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="flow matching with and without OT coupling")
    parser.add_argument("--data", choices=["moons", "digits"], default="moons")
    parser.add_argument("--points", type=int, default=4000, help="of the moons")
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--output", default="flow.png")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are so small that threads would only wait
    torch.manual_seed(0)
    y = torch.from_numpy(moons(options.points) if options.data == "moons" else digits())
    ot = SemiDiscreteOT(y, source="normal")
    result = ot.fit(chi2=0.1)
    print(f"coupling: chi2 {result.chi2:.3f} after {result.seconds:.1f} s")
    flows = {
        "independent": train(y, independent(y, 256), options.steps),
        "coupled": train(y, ot.to_dataloader(256), options.steps),
    }
    x = torch.randn(2000, y.shape[1])
    found = {}
    for name, model in flows.items():
        errors = {k: energy_distance(paths(model, x, k)[-1], y[:2000]) for k in EULER}
        found[name] = {"bending": bending(paths(model, x, 64)), "energy_distance": errors}
        words = ", ".join(f"{error:.4f} ({k})" for k, error in errors.items())
        print(f"{name}: bending {found[name]['bending']:.3f}, distance to data (steps) {words}")
    picture(y, flows, x, options.output)
    return found


if __name__ == "__main__":
    main()
