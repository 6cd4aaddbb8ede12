# SPDX-License-Identifier: Apache-2.0
"""Every op in plain torch: what it means. Slow on purpose; the tests hold the kernels to it."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF


def cell_mass(index: Tensor, N: int, weights: Tensor | None = None) -> Tensor:
    """Number of samples in each cell, or the sum of their weights, [N]; index -1 is left out."""
    kept = index >= 0
    if weights is None:
        return torch.bincount(index[kept], minlength=N)
    sums = torch.zeros(N, dtype=torch.float64, device=index.device)
    return sums.index_add(0, index[kept], weights[kept].double()).to(weights.dtype)


def power_argmax(x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Largest `<x_b, y_i> + h_i` and the lowest i that has it; NaN scores lose.

    The sum has an order of its own (matmul's), so bits agree only where arithmetic is exact.
    """
    scores = x @ y.T + h
    beaten = scores.isnan()
    value, index = torch.where(beaten, -torch.inf, scores).max(1)
    lowest = (torch.where(beaten, -torch.inf, scores) == value[:, None]) & ~beaten
    index = lowest.to(torch.int8).argmax(1)
    none = beaten.all(1)
    return torch.where(none, torch.nan, value), torch.where(none, -1, index)


def power_topk(x: Tensor, y: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest `<x_b, y_i> + h_i`, of equal ones the lower index first; [..., B, k].

    NaN scores are left out; places without a score hold NaN and -1.
    """
    scores = x @ y.mT + h[..., None, :]
    room = (*scores.shape[:-1], max(0, k - scores.shape[-1]))
    scores = torch.cat([scores, scores.new_full(room, torch.nan)], -1)
    beaten = scores.isnan()
    # Two stable sorts: by score, then what is no number behind what is -inf.
    order = (
        torch.where(beaten, -torch.inf, scores).sort(dim=-1, descending=True, stable=True).indices
    )
    order = order.gather(
        -1, beaten.gather(-1, order).to(torch.int8).sort(dim=-1, stable=True).indices
    )
    order = order[..., :k]
    none = beaten.gather(-1, order)
    value = torch.where(none, torch.nan, scores.gather(-1, order))
    return value, torch.where(none, -1, order)


def philox_words(seed: int, stream: int, first: int, count: int) -> Tensor:
    """Words 4 * first .. of Philox4x32-10 as int64 in [0, 2^32), [4 * count]."""
    position = torch.arange(first, first + count, dtype=torch.int64)
    counter = [position & MASK, (position >> 32) & MASK]
    counter += [torch.full_like(position, (stream >> shift) & MASK) for shift in (0, 32)]
    key = [seed & MASK, (seed >> 32) & MASK]
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, counter[0])
        high1, low1 = _multiply(0xCD9E8D57, counter[2])
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return torch.stack(counter, 1).flatten()


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b, through halves of 16 bits that int64 can hold."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    middle = high + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def source_samples(
    out: Tensor, source: str = "normal", *, seed: int = 0, stream: int = 0, offset: int = 0
) -> Tensor:
    """Philox words by way of float64 special functions: the kernels' numbers within rounding."""
    B, D = out.shape
    first = offset * D
    words = philox_words(seed, stream, first // 4, B * D // 4 + 2)[first % 4 :][: B * D]
    if source == "uniform":
        numbers = ((words >> 9) + 0.5) * 2.0**-23
    else:
        tail = ((words & 0x7FFFFFFF) + 0.5) * 2.0**-32
        negative = words >> 31 == 1
        numbers = torch.where(negative, tail, 1 - tail)
        if source == "normal":
            numbers = torch.special.ndtri(tail) * torch.where(negative, 1, -1)
    return out.copy_(numbers.reshape(B, D))


def heights_adam_step(
    h: Tensor,
    m: Tensor,
    v: Tensor,
    mass: Tensor,
    nu: Tensor,
    step: int,
    *,
    lr: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """Adam (Kingma and Ba) down the gradient mass - nu, in place; step 0: no bias correction."""
    g = mass - nu
    m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    left = [1 - beta**step if step > 0 else 1.0 for beta in betas]
    h.sub_(lr / left[0] * m / ((v / left[1]).sqrt() + eps))


def heights_adam_solve(
    y: Tensor,
    nu: Tensor,
    source: str = "normal",
    *,
    iterations: int,
    batch: int,
    lr: float = 0.05,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Heights and chi2 per step of Adam with fresh samples, from zero heights."""
    h, m, v = (torch.zeros_like(nu) for _ in range(3))
    chi2 = []
    for step in range(1, iterations + 1):
        x = source_samples(y.new_empty(batch, y.shape[1]), source, seed=seed, stream=step)
        count = cell_mass(power_argmax(x, y, h)[1], len(nu)).double()
        chi2.append((count * (count - 1) / nu).sum() / (batch * (batch - 1)) - 1)
        heights_adam_step(h, m, v, (count / batch).to(nu.dtype), nu, step, lr=lr)
        if step % 256 == 0:
            h -= h.mean()
    return h, torch.stack(chi2)
