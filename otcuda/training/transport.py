# SPDX-License-Identifier: Apache-2.0
"""Stage `transport`: the OT map from noise onto the latents, and cells of equal mass for labels.

Two semi-discrete problems, one a step:

1. the picture-level map: source T~ (the cube), targets the pooled latents of the stage `noise`. At
   its heights every training crop is drawn equally often.
2. the label codebook: source the latents of single positions, targets a few centres. At its
   heights every label is met equally often, so that a discriminator needs no weights for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from otcuda import power_argmax
from otcuda.codec.networks import to_rgb
from otcuda.codec.sampling import LatentSampler, NoiseLaw
from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT

_LLOYD_ROUNDS = 10
_LABEL_SAMPLES = 1 << 22  # limit of the codebook's solver; a few codes are cheap to solve for

Decoder = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TransportConfig:
    """Settings of the stage.

    Attributes:
        chi2: goal of both problems.
        samples: most samples a target that the solver of the map may draw.
        codes: labels, K.
        code_dimension: principal coordinates of a position that tell the labels apart.
        positions: latent positions that the codebook is made of.
        seed: of samples and centres.
    """

    chi2: float = 0.05
    samples: int = 256
    codes: int = 32
    code_dimension: int = 8
    positions: int = 65536
    seed: int = 0


@dataclass(frozen=True)
class LabelCodebook:
    """Cells of single latent positions.

    Attributes:
        mean: of the latents of a position, [M].
        basis: of their principal coordinates, divided by the common spread, [d, M].
        codes: centres, [K, d].
        heights: balanced: every cell holds the same share of the positions, [K].
    """

    mean: Tensor
    basis: Tensor
    codes: Tensor
    heights: Tensor

    def coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates [B h w, d] of the positions of latents [B, M, h, w]."""
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        return (rows - self.mean) @ self.basis.T

    def labels(self, latents: Tensor) -> Tensor:
        """Cell of every position, int64 [B, h, w]."""
        # On the CPU, wherever the latents lie: few numbers, and the core may know no other device.
        coordinates = self.coordinates(latents.cpu().float())
        _, index = power_argmax(coordinates, self.codes, self.heights)
        return index.view(len(latents), *latents.shape[2:]).to(latents.device)

    def jittered(
        self, latents: Tensor, width: float | Tensor, generator: torch.Generator
    ) -> Tensor:
        """Latents moved at random inside their cells, uniformly within +-width/2 a channel.

        A position that would leave its cell stays where it is.

        Args:
            latents: [B, M, h, w].
            width: a number, or a tensor that fits.
            generator: on the CPU.
        """
        noise = torch.rand(latents.shape, generator=generator).to(latents.device)
        moved = latents + width * (noise - 0.5)
        stays = self.labels(moved) == self.labels(latents)
        return torch.where(stays[:, None], moved, latents)

    def tensors(self) -> dict[str, Tensor]:
        """Everything it is made of, to be saved."""
        return {name: getattr(self, name) for name in ("mean", "basis", "codes", "heights")}


def label_counts(book: LabelCodebook, latents: Tensor) -> Tensor:
    """How often each label is met in latents [B, M, h, w]: int64 [K]."""
    labels = [book.labels(part.float()).flatten() for part in latents.split(256)]
    return torch.bincount(torch.cat(labels), minlength=len(book.codes))


def positions_of(latents: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` random positions of latents [N, M, h, w], float32 [n, M]."""
    rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    return rows[chosen].float()


def principal_coordinates(rows: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """Mean [M] and basis [d, M] of rows [n, M]; coordinates have mean square 1 over all of them."""
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T.double() @ (rows - mean).double())
    basis = vectors[:, -dimension:].flip(1).T
    unit = (values[-dimension:].mean() / len(rows)).sqrt().clamp_min(1e-12)
    return mean, (basis / unit).float().contiguous()


def centres(points: Tensor, K: int, seed: int) -> Tensor:
    """K centres [K, d] of points [n, d]: Lloyd's iteration from distinct random points."""
    distinct = torch.unique(points, dim=0)
    if len(distinct) < K:
        raise ArgumentError(f"codes is {K}; the latents have only {len(distinct)} values")
    generator = torch.Generator().manual_seed(seed)
    codes = distinct[torch.randperm(len(distinct), generator=generator)[:K]].clone()
    for _ in range(_LLOYD_ROUNDS):
        _, nearest = power_argmax(points, codes, -codes.square().sum(1) / 2)
        counts = torch.bincount(nearest, minlength=K)
        sums = torch.zeros_like(codes).index_add_(0, nearest, points)
        used = counts > 0
        codes[used] = sums[used] / counts[used, None]
    return codes


class TransportStage:
    """See `otcuda.training.loop.Stage`.

    Args:
        law: of the pooled latents, by the stage `noise`.
        latents: of its crops, [N, M, h, w].
        decoder: latents and log2 of the step to planes, for the sample picture.
        config: settings.
    """

    name = "transport"
    steps = 2

    def __init__(
        self, law: NoiseLaw, latents: Tensor, decoder: Decoder, config: TransportConfig
    ) -> None:
        self.config, self._law, self._latents, self._decoder = config, law, latents, decoder
        self.sampler: LatentSampler | None = None
        self.codebook: LabelCodebook | None = None

    def advance(self, step: int) -> dict[str, float]:
        """Solve one of the two problems."""
        return self._solve_map() if step == 0 else self._solve_codebook()

    def _solve_map(self) -> dict[str, float]:
        config, law = self.config, self._law
        targets = torch.cat([law.targets(law.pool(part)) for part in self._latents.split(256)])
        ot = SemiDiscreteOT(targets, source="gaussian_cdf")
        most = config.samples * len(targets)
        result = ot.fit(method="adam", chi2=config.chi2, max_samples=most, seed=config.seed)
        self.sampler = LatentSampler(law, targets, ot.heights, self._latents)
        return {"chi2": result.chi2, "samples": float(result.samples)}

    def _solve_codebook(self) -> dict[str, float]:
        config = self.config
        rows = positions_of(self._latents, config.positions, config.seed)
        mean, basis = principal_coordinates(rows, config.code_dimension)
        points = (rows - mean) @ basis.T
        codes = centres(points, config.codes, config.seed)
        ot = SemiDiscreteOT(codes, source=points)
        result = ot.fit(
            method="adam",
            chi2=config.chi2,
            max_samples=_LABEL_SAMPLES,
            seed=config.seed,
        )
        self.codebook = LabelCodebook(mean, basis, codes, ot.heights.float())
        return {"label_chi2": result.chi2, "label_samples": float(result.samples)}

    def validate(self) -> dict[str, float]:
        """chi2 of both problems; `score` is the larger one, negated.

        `label_chi2` is over all latents, `label_entropy` the share of log2 K that the labels reach.
        """
        if self.sampler is None or self.codebook is None:
            return {"score": float("-inf")}
        counts = label_counts(self.codebook, self._latents).double()
        share = counts / counts.sum()
        K = len(share)
        label_chi2 = float(K * share.square().sum() - 1)
        entropy = float(-(share * share.clamp_min(1e-12).log2()).sum() / np.log2(K))
        fresh = 64 * len(self._latents)
        chi2 = self.sampler.ot.chi2(fresh, seed=self.config.seed + 1).value
        return {
            "chi2": chi2,
            "label_chi2": label_chi2,
            "label_entropy": entropy,
            "score": -max(chi2, label_chi2),
        }

    @torch.no_grad()
    def sample(self, path: Path) -> None:
        """Eight crops that the map draws, and below them eight mixtures of the extended map."""
        if self.sampler is None:
            return
        draws = [self.sampler.draw(8, self.config.seed, extended) for extended in (False, True)]
        latents = torch.cat([draw.latents for draw in draws])
        planes = self._decoder(latents, torch.full((16,), self._law.log2_step))
        rgb = to_rgb(planes).clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
        rows = [np.concatenate(list(row), 1) for row in (rgb[:8], rgb[8:])]
        Image.fromarray(np.concatenate(rows, 0)).save(path)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The sampler (law, targets, heights, latents) and the codebook, as far as solved."""
        tensors: dict[str, Tensor] = {}
        if self.sampler is not None:
            tensors |= {f"sampler.{k}": v for k, v in self.sampler.tensors().items()}
        if self.codebook is not None:
            tensors |= {f"labels.{k}": v for k, v in self.codebook.tensors().items()}
        return tensors, {"threads": torch.get_num_threads()}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.sampler, self.codebook = parts_of(tensors)


def parts_of(
    tensors: Mapping[str, Tensor],
) -> tuple[LatentSampler | None, LabelCodebook | None]:
    """Sampler and label codebook in the tensors of a checkpoint, None where one is missing."""
    found = {"sampler.": None, "labels.": None}
    for prefix in found:
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        found[prefix] = part or None
    sampler, labels = found.values()
    return (
        None if sampler is None else LatentSampler.from_tensors(sampler),
        None if labels is None else LabelCodebook(**labels),
    )
