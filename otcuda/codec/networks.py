# SPDX-License-Identifier: Apache-2.0
"""The networks of the codec in torch: analysis, context model, synthesis.

Everything lives in orthonormal units: the colour transform and the Karhunen-Loeve transform (KLT)
that starts the auto-encoder are orthonormal, so that a squared error of latents is a squared error
of pixels, and one Lagrange multiplier `lambda = c D^2` serves every quantiser step D.

    y = KLT16(x) + s f(x)          analysis: picture [B, 3, H, W] -> latents [B, M, H/16, W/16]
    symbol = round(y / D - mu)     mu and the scale of each symbol come from the context model
    x = KLT16'(y) + s g(y, D)      synthesis, and s r(x, y, D) on top of it where there is a filter

f, g and r start at zero: an untrained network *is* the linear transform coder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the field's own abbreviation)
from torch import Tensor, nn

# Luma (1, 1, 1), R - B and R - 2 G + B, orthonormal: errors of the planes are errors of RGB.
COLOUR = torch.tensor(
    [
        [3**-0.5, 3**-0.5, 3**-0.5],
        [2**-0.5, 0.0, -(2**-0.5)],
        [6**-0.5, -2 * 6**-0.5, 6**-0.5],
    ]
)
STRIDE = 16  # pixels a latent position
FILTER_STRIDE = 2  # pixels a position of the picture filter
ALIGN = 64  # pixels to which pictures are padded: one period of the coding phases
NET_SCALE = 64.0  # unit in which the networks see pixels and latents
PHASES = 5  # of the positions; see PHASE_GRIDS
FEATURE_LIMIT = 127 / 16  # symbols enter the context model as int8 in units of 1/16
STEP_CENTRE = 8.0  # log2 of the step whose plane is zero
SLOPE = 1 / 8  # leaky ReLU of the context model: a shift in integers
SCALE_LOW, SCALE_HIGH = -5.0, 5.5  # log2 of the Laplace scale, in units of the step

Quantiser = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the networks; stored with the weights.

    Attributes:
        latents: channels M of the latents.
        width8: channels at 1/8 of the resolution.
        width16: channels at 1/16 of the resolution.
        analysis_blocks: residual blocks of the analysis at 1/8 and 1/16.
        synthesis_blocks: residual blocks of the synthesis at 1/16 and 1/8.
        context_width: channels of the context model.
        groups: channel at which the second and the third group of the context model begin.
        coarse_copies: how often the context model sees the first group again, each copy a quarter
            of the one before: values that a fine step makes large would be clipped otherwise.
        centroids: a symbol stands for the mean of its interval under its Laplace law, not for the
            middle of the interval.
        filter_width: channels of the picture filter, at half of the resolution; 0 for none.
        filter_blocks: residual blocks of the picture filter.
    """

    latents: int = 64
    width8: int = 96
    width16: int = 192
    analysis_blocks: tuple[int, int] = (1, 1)
    synthesis_blocks: tuple[int, int] = (3, 2)
    context_width: int = 96
    groups: tuple[int, int] = (6, 24)
    coarse_copies: int = 1
    centroids: bool = False
    filter_width: int = 0
    filter_blocks: int = 2


def to_planes(rgb: Tensor) -> Tensor:
    """RGB in [0, 255], [B, 3, H, W], to orthonormal luma and chroma around zero."""
    return torch.einsum("ij,bjhw->bihw", COLOUR.to(rgb), rgb - 128.0)


def to_rgb(planes: Tensor) -> Tensor:
    """Inverse of `to_planes`, not clipped."""
    return torch.einsum("ji,bjhw->bihw", COLOUR.to(planes), planes) + 128.0


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Convolution that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights: the branch it ends starts as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + conv(leaky(conv(x))), the second convolution zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width)
        self.second = zero(conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] to the same shape."""
        return x + self.second(F.leaky_relu(self.first(x), 0.1))


class Analysis(nn.Module):
    """Planes [B, 3, H, W] to latents [B, M, H/16, W/16]; H and W are multiples of 16."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        wide8, wide16 = config.width8, config.width16
        at8, at16 = config.analysis_blocks
        self.klt = nn.Conv2d(3 * STRIDE * STRIDE, config.latents, 1, bias=False)
        self.net = nn.Sequential(
            nn.PixelUnshuffle(8),
            conv(192, wide8),
            *[ResidualBlock(wide8) for _ in range(at8)],
            nn.LeakyReLU(0.1),
            conv(wide8, wide16, 3, 2),
            *[ResidualBlock(wide16) for _ in range(at16)],
            nn.LeakyReLU(0.1),
            zero(conv(wide16, config.latents)),
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Latents in orthonormal units."""
        linear = self.klt(F.pixel_unshuffle(planes, STRIDE)).float()
        return linear + NET_SCALE * self.net(planes / NET_SCALE).float()


class PictureFilter(nn.Module):
    """Mends the picture at half of the resolution, across the borders of the blocks.

    A position at 1/8 stands for 192 values and has half as many channels: what follows an edge
    from pixel to pixel cannot all pass through them. Untrained it adds nothing.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width, blocks = config.filter_width, config.filter_blocks
        self.see = conv(3 * FILTER_STRIDE**2, width)
        self.know = nn.Conv2d(config.width8, width * (8 // FILTER_STRIDE) ** 2, 1, bias=False)
        self.body = nn.Sequential(
            *[ResidualBlock(width) for _ in range(blocks)],
            nn.LeakyReLU(0.1),
            zero(conv(width, 3 * FILTER_STRIDE**2)),
            nn.PixelShuffle(FILTER_STRIDE),
        )
        # Features that differ from the start: blocks of nothing take 400 steps to have any.
        nn.init.kaiming_normal_(self.see.weight)
        for block in self.body[:blocks]:
            nn.init.kaiming_normal_(block.first.weight)
            nn.init.kaiming_normal_(block.second.weight)
            with torch.no_grad():
                block.second.weight.mul_(0.5)

    def forward(self, planes: Tensor, known: Tensor) -> Tensor:
        """What is to be added to planes [B, 3, H, W], in units of `NET_SCALE`.

        Args:
            planes: of the synthesis so far, in units of `NET_SCALE`.
            known: what it has made them of at 1/8 of the resolution, [B, width8, H/8, W/8].
        """
        known = F.pixel_shuffle(self.know(known), 8 // FILTER_STRIDE)
        return self.body(self.see(F.pixel_unshuffle(planes, FILTER_STRIDE)) + known).float()


class Synthesis(nn.Module):
    """Latents [B, M, H/16, W/16] and log2 of the step [B] to planes [B, 3, H, W]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        wide8, wide16 = config.width8, config.width16
        at16, at8 = config.synthesis_blocks
        self.klt = nn.Conv2d(config.latents, 3 * STRIDE * STRIDE, 1, bias=False)
        self.coarse = nn.Sequential(
            conv(config.latents + 1, wide16),
            *[ResidualBlock(wide16) for _ in range(at16)],
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide16, 4 * wide8, 1),
            nn.PixelShuffle(2),
        )
        self.fine = nn.Sequential(
            *[ResidualBlock(wide8) for _ in range(at8)],
            nn.LeakyReLU(0.1),
            zero(conv(wide8, 192)),
            nn.PixelShuffle(8),
        )
        self.filter = PictureFilter(config) if config.filter_width else None

    def features(self, latents: Tensor, log2_step: Tensor) -> Tensor:
        """What the network knows at 1/8 of the resolution, [B, width8, H/8, W/8]."""
        plane = step_plane(latents, log2_step)
        return self.coarse(torch.cat([latents / NET_SCALE, plane], 1))

    def forward(self, latents: Tensor, log2_step: Tensor) -> Tensor:
        """Planes in orthonormal units."""
        linear = F.pixel_shuffle(self.klt(latents), STRIDE).float()
        known = self.fine[:-2](self.features(latents, log2_step))
        planes = linear + NET_SCALE * self.fine[-2:](known).float()
        if self.filter is None:
            return planes
        seen = (planes / NET_SCALE).to(self.klt.weight.dtype)
        return planes + NET_SCALE * self.filter(seen, known)


def step_plane(like: Tensor, log2_step: Tensor) -> Tensor:
    """A constant plane [B, 1, H, W] that says how coarse the quantiser is."""
    plane = (2.0 * (log2_step - STEP_CENTRE))[:, None, None, None]
    return plane.expand(-1, 1, like.shape[2], like.shape[3])


@dataclass(frozen=True)
class Grid:
    """The positions (i + stride a, j + stride b) of a latent grid.

    Attributes:
        i: first row.
        j: first column.
        stride: from one to the next, in both directions.
    """

    i: int
    j: int
    stride: int

    def of(self, planes: Tensor) -> Tensor:
        """Values [B, C, a, b] at these positions, of planes [B, C, h, w]; a view."""
        return planes[:, :, self.i :: self.stride, self.j :: self.stride]


# The coding phases, 1/16, 1/16, 1/8, 1/4 and 1/2 of the positions: grids that are coded together.
PHASE_GRIDS = (
    (Grid(0, 0, 4),),
    (Grid(2, 2, 4),),
    (Grid(0, 2, 4), Grid(2, 0, 4)),
    (Grid(1, 1, 2),),
    (Grid(0, 1, 2), Grid(1, 0, 2)),
)


def spread(values: Tensor, kernel: Tensor, dilation: int, grid: Grid, like: Tensor) -> Tensor:
    """What a 3 x 3 convolution makes of planes that are zero but at the positions of a grid.

    Args:
        values: at those positions, [B, C, a, b].
        kernel: [H, C, 3, 3].
        dilation: of the convolution, which keeps the size.
        grid: where they are.
        like: planes [., ., h, w] of the size of the result.

    Returns:
        [B, H, h, w].
    """
    turned = kernel.flip(2, 3).transpose(0, 1)
    full = F.conv_transpose2d(values, turned, stride=grid.stride, dilation=dilation)
    top, left = grid.i - dilation, grid.j - dilation
    bottom, right = (n - m for n, m in zip(like.shape[2:], full.shape[2:], strict=True))
    return F.pad(full, (left, right - left, top, bottom - top))


def conv_at(planes: Tensor, weight: Tensor, bias: Tensor, grid: Grid) -> Tensor:
    """A 3 x 3 convolution of planes [B, C, h, w], at the positions of a grid alone."""
    padded = F.pad(planes, (1, 1, 1, 1))[:, :, grid.i :, grid.j :]
    return F.conv2d(padded, weight, bias, stride=grid.stride)


def laplace_bits(symbol: Tensor, scale: Tensor) -> Tensor:
    """-log2 of the mass of [symbol - 1/2, symbol + 1/2] under a centred Laplace law."""
    magnitude = symbol.abs()
    low, high = magnitude - 0.5, magnitude + 0.5
    # Two forms, each where it does not cancel: the tail as a product, the middle as a difference.
    tail = -low / scale + torch.log(-torch.expm1(-1 / scale)) - math.log(2)
    below = 0.5 * torch.exp(torch.clamp(low, max=0) / scale)
    above = 0.5 * torch.exp(-high / scale)
    middle = torch.log((1 - above - below).clamp_min(1e-9))
    return -torch.where(magnitude >= 0.5, tail, middle) / math.log(2)


def centroid_shift(scale: Tensor) -> Tensor:
    """How far the mean of [n - 1/2, n + 1/2], n >= 1, lies below n under a Laplace law.

    For a scale b it is 1/2 - b + 1 / (exp(1/b) - 1), whatever n.
    """
    return 0.5 - scale + 1 / torch.expm1(1 / scale)


def fitted_log2_scale(latents: Tensor, log2_step: float) -> Tensor:
    """log2 of the Laplace scale of each channel whose rounded values have the magnitudes seen.

    A Laplace law of scale b (in steps), rounded, has mean magnitude exp(-1/2b) / (1 - exp(-1/b)).

    Args:
        latents: [n, M], orthonormal units.
        log2_step: step at which they are rounded.

    Returns:
        [M], orthonormal units.
    """
    magnitude = torch.round(latents / 2**log2_step).abs().mean(0)
    grid = torch.linspace(SCALE_LOW + 2, SCALE_HIGH, 512, dtype=torch.float64)
    mean = torch.exp(-0.5 / 2**grid) / -torch.expm1(-1 / 2**grid)
    at = torch.searchsorted(mean, magnitude.double()).clamp_max(len(grid) - 1)
    return (grid[at] + log2_step).float()


class ContextModel(nn.Module):
    """Mean and scale of every symbol from earlier positions and channels.

    Built so that integers can follow it exactly (`csrc/common/context_net.h`): inputs are clipped
    int8 in units of 1/16, the leaky slope is a shift, the scale lies on a grid of sixths of an
    octave.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        M, H = config.latents, config.context_width
        self.edges = (0, *config.groups, M)
        first = config.groups[0]
        self.copies = config.coarse_copies
        self.centroids = config.centroids
        # symbols, the first group again at a quarter, a sixteenth ..., "known", step
        inputs = M + self.copies * first + 2
        self.near = conv(inputs, H)
        self.far = nn.Conv2d(inputs, H, 3, padding=4, dilation=4, bias=False)
        self.heard = nn.Identity()  # where the range of the first activation is measured
        self.deep = conv(H, H)
        spans = list(zip(self.edges[:-1], self.edges[1:], strict=True))
        self.mix = nn.ModuleList(nn.Conv2d(H + a, H, 1) for a, _ in spans)
        self.out = nn.ModuleList(zero(nn.Conv2d(H, 2 * (b - a), 1)) for a, b in spans)
        self.phase_scale = nn.Parameter(torch.zeros(PHASES, M))
        self.channel_scale = nn.Parameter(torch.zeros(M))  # log2, in orthonormal units

    def sums(self, log2_step: Tensor, like: Tensor) -> Tensor:
        """The first layer before its activation where nothing is known, [B, width, h, w].

        Args:
            log2_step: [B].
            like: planes [., ., h, w] of the size of the grid.
        """
        step = clip(step_plane(like, log2_step))
        near, far = self.near.weight[:, -1:], self.far.weight[:, -1:]
        return F.conv2d(step, near, self.near.bias, padding=1) + F.conv2d(
            step, far, padding=4, dilation=4
        )

    def absorb(self, sums: Tensor, values: Tensor, grid: Grid) -> Tensor:
        """The sums once the values of a grid are known too, [B, M, a, b] in units of the step."""
        first = values[:, : self.edges[1]]
        copies = [clip(first / 4 ** (n + 1)) for n in range(self.copies)]
        seen = torch.cat([clip(values), *copies, torch.ones_like(values[:, :1])], 1)
        for layer, dilation in ((self.near, 1), (self.far, 4)):
            sums = sums + spread(seen, layer.weight[:, :-1], dilation, grid, sums)
        return sums

    def features(self, sums: Tensor, grid: Grid) -> Tensor:
        """Features of the positions of a grid, [B, width, a, b]."""
        heard = self.heard(F.leaky_relu(sums, SLOPE))
        return F.leaky_relu(conv_at(heard, self.deep.weight, self.deep.bias, grid), SLOPE)

    def forward(
        self, latents: Tensor, log2_step: Tensor, quantise: Quantiser, means: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Quantise phase by phase.

        Args:
            latents: [B, M, h, w], orthonormal units.
            log2_step: [B].
            quantise: residual (in steps) -> (symbol for the decoder, value for the rate).
            means: in how many parts of a step means are rounded, as integers have them; 0 for none.

        Returns:
            Decoded latents [B, M, h, w] and bits a picture [B].
        """
        step = torch.exp2(log2_step)[:, None, None, None]
        y = latents / step
        known, bits = torch.zeros_like(y), torch.zeros_like(log2_step)
        sums = self.sums(log2_step, y)
        for p, grids in enumerate(PHASE_GRIDS):
            found = []
            for grid in grids:
                here = grid.of(y)
                if here.numel() == 0:
                    continue
                features = self.features(sums, grid)
                value, rate, scale = self._positions(features, here, log2_step, p, quantise, means)
                grid.of(known).copy_(value)
                bits = bits + laplace_bits(rate, scale).sum((1, 2, 3))
                found.append((value, grid))
            if p + 1 < PHASES:
                for value, grid in found:
                    sums = self.absorb(sums, value, grid)
        return known * step, bits

    def _positions(
        self,
        features: Tensor,
        y: Tensor,
        log2_step: Tensor,
        phase: int,
        quantise: Quantiser,
        means: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The channel groups of one phase in turn: value, residual for the rate, scale."""
        values, rates, scales = [], [], []
        for g, (a, b) in enumerate(zip(self.edges[:-1], self.edges[1:], strict=True)):
            mu, log2_scale = self.parameters_of_group(features, values, log2_step, phase, g)
            if means:
                mu = torch.round(mu * means) / means
            value, rate = quantise(y[:, a:b] - mu)
            scales.append(torch.exp2(log2_scale.clamp(SCALE_LOW, SCALE_HIGH)))
            rates.append(rate)
            if self.centroids:
                value = value - torch.sign(value.detach()) * centroid_shift(scales[-1].detach())
            values.append(value + mu)
        return torch.cat(values, 1), torch.cat(rates, 1), torch.cat(scales, 1)

    def parameters_of_group(
        self, features: Tensor, values: list[Tensor], log2_step: Tensor, phase: int, group: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and log2 of the scale, both in units of the step, of one channel group."""
        a, b = self.edges[group], self.edges[group + 1]
        t = torch.cat([features, *[clip(v) for v in values]], 1)
        o = self.out[group](F.leaky_relu(self.mix[group](t), SLOPE)).float()
        offset = (self.channel_scale[a:b] + self.phase_scale[phase, a:b])[None, :, None, None]
        return o[:, : b - a], o[:, b - a :] + offset - log2_step[:, None, None, None]


def clip(value: Tensor) -> Tensor:
    """The range in which the context model sees a value."""
    return value.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def quantise_noisy(residual: Tensor) -> tuple[Tensor, Tensor]:
    """Training: straight-through rounding for the decoder, additive noise for the rate.

    Source: Minnen & Singh, Channel-wise autoregressive entropy models, ICIP 2020.
    """
    noisy = residual + torch.rand_like(residual) - 0.5
    return _RoundStraightThrough.apply(residual), noisy


def quantise_hard(residual: Tensor) -> tuple[Tensor, Tensor]:
    """Rounding for both, with straight-through gradients."""
    rounded = _RoundStraightThrough.apply(residual)
    return rounded, rounded


def low_config() -> CodecConfig:
    """Sizes for less than 0.1 bit a pixel."""
    return CodecConfig(analysis_blocks=(3, 2), synthesis_blocks=(6, 5), context_width=192)


def middle_config() -> CodecConfig:
    """Sizes for 0.1 to 0.8 bit a pixel: 256 latents more than for low rates, fewer blocks."""
    return CodecConfig(
        latents=320,
        analysis_blocks=(2, 2),
        synthesis_blocks=(4, 3),
        context_width=192,
        groups=(6, 24, 64, 160),
        coarse_copies=3,
        centroids=True,
        filter_width=48,
    )


def high_config() -> CodecConfig:
    """Sizes for more than that: small networks around a linear transform, a wide context."""
    return CodecConfig(
        latents=320,
        synthesis_blocks=(2, 2),
        context_width=192,
        groups=(12, 64),
        coarse_copies=3,
        centroids=True,
        filter_width=48,
    )


class Codec(nn.Module):
    """Analysis, context model and synthesis with one configuration."""

    def __init__(self, config: CodecConfig = CodecConfig()) -> None:
        super().__init__()
        self.config = config
        self.analysis = Analysis(config)
        self.context = ContextModel(config)
        self.synthesis = Synthesis(config)

    def forward(
        self, planes: Tensor, log2_step: Tensor, quantise: Quantiser
    ) -> tuple[Tensor, Tensor]:
        """Decoded planes [B, 3, H, W] and bits [B]."""
        latents, bits = self.context(self.analysis(planes), log2_step, quantise)
        return self.synthesis(latents, log2_step), bits

    @torch.no_grad()
    def start_from_klt(self, blocks: Tensor, log2_step: float = 8.5) -> float:
        """Set the linear parts to the KLT of 16x16 blocks, the scales to those of its coefficients.

        Args:
            blocks: unshuffled planes of training pictures, [n, 768].
            log2_step: the quantiser step at which the scales are fitted.

        Returns:
            Share of the energy that the kept components hold.
        """
        covariance = blocks.T.double() @ blocks.double() / len(blocks)
        energy, vectors = torch.linalg.eigh(covariance)
        order = torch.argsort(energy, descending=True)[: self.config.latents]
        basis = vectors[:, order].T.float().contiguous()
        self.analysis.klt.weight.copy_(basis[:, :, None, None])
        self.synthesis.klt.weight.copy_(basis.T[:, :, None, None])
        self.context.channel_scale.copy_(fitted_log2_scale(blocks @ basis.T, log2_step))
        return float(energy[order].sum() / energy.sum())
