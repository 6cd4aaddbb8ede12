# SPDX-License-Identifier: Apache-2.0
"""LPIPS and DISTS on our own AlexNet and VGG-16 trunks, for evaluation and as training losses.

`Perceptual(folder)` reads three safetensors files, each on first use (docs/evaluation.md: what they
are and how to build them). Pictures are float tensors [B, 3, H, W], RGB in [0, 1]; everything is
differentiable in the pictures and frozen in the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from otcuda.errors import ArgumentError, BackendError, ShapeError
from otcuda.evaluation.metrics import Pixels

METRICS = ("lpips_alex", "lpips_vgg", "dists")

FILES = {
    "alexnet": "alexnet_features.safetensors",
    "vgg16": "vgg16_features.safetensors",
    "heads": "heads.safetensors",
}
NEEDS = {
    "lpips_alex": ("alexnet", "heads"),
    "lpips_vgg": ("vgg16", "heads"),
    "dists": ("vgg16", "heads"),
}
MIN_SIDE = 32
"""AlexNet's last map is empty on anything smaller."""

# torchvision's index of each convolution; of AlexNet: stride, padding, whether a pool comes first
_ALEXNET = ((0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False))
_VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

# ImageNet's mean and deviation; LPIPS writes the same numbers for pictures in [-1, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Taps = tuple[Tensor, ...]
Pool = Callable[[Tensor], Tensor]


class Perceptual:
    """The metrics of published networks, on weights that the user has in a folder.

    Args:
        networks_folder: where the files of `FILES` lie; without it the environment's
            `OTCUDA_NETWORKS`.
        device: where the weights go; pictures must lie there too.

    Raises:
        ArgumentError: no folder was named, or it is none.
        BackendError: by a metric whose file is not in the folder; `available` leaves it out.

    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric,
    CVPR 2018 (LPIPS 0.1); Ding et al., Image quality assessment: unifying structure and texture
    similarity, TPAMI 2020 (DISTS).
    """

    def __init__(
        self,
        networks_folder: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        folder = networks_folder or os.environ.get("OTCUDA_NETWORKS")
        if not folder:
            raise ArgumentError(
                "networks_folder: name the folder of the metric networks, or set OTCUDA_NETWORKS; "
                "docs/evaluation.md says how to build it"
            )
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ArgumentError(f"networks_folder: {self.folder} is not a folder")
        self.device = torch.device(device)
        self._loaded: dict[str, dict[str, Tensor]] = {}

    @property
    def available(self) -> tuple[str, ...]:
        """Metrics whose files are in the folder, in the order of `METRICS`."""
        there = {name for name, file in FILES.items() if (self.folder / file).is_file()}
        return tuple(metric for metric in METRICS if there.issuperset(NEEDS[metric]))

    def alexnet_features(self, x: Tensor) -> Taps:
        """The five ReLU maps of AlexNet, strides 4, 8, 16, 16, 16; x [B, 3, H, W] in [0, 1]."""
        check_pictures("alexnet_features", x)
        weights, taps = self._weights("alexnet"), []
        x = _normalised(x)
        for layer, stride, padding, pooled in _ALEXNET:
            if pooled:
                x = max_pool2d(x, 3, 2)
            x = relu(conv2d(x, *_layer(weights, layer), stride, padding))
            taps.append(x)
        return tuple(taps)

    def vgg16_features(self, x: Tensor) -> Taps:
        """The last ReLU map of VGG-16's five blocks, strides 1 to 16; x [B, 3, H, W] in [0, 1]."""
        check_pictures("vgg16_features", x)
        return self._vgg16(_normalised(x), lambda t: max_pool2d(t, 2, 2))

    def dists_features(self, x: Tensor) -> Taps:
        """The six maps DISTS compares: the picture, and VGG-16's with blurred (L2) pools."""
        check_pictures("dists_features", x)
        return x, *self._vgg16(_normalised(x), _l2_pool)

    def lpips_alex(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS 0.1 on AlexNet, of pictures [B, 3, H, W] in [0, 1] -> [B]; 0 when equal."""
        check_pictures("lpips_alex", a, b)
        return self.compare("lpips_alex", self.alexnet_features(a), self.alexnet_features(b))

    def lpips_vgg(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS 0.1 on VGG-16, of pictures [B, 3, H, W] in [0, 1] -> [B]; 0 when equal."""
        check_pictures("lpips_vgg", a, b)
        return self.compare("lpips_vgg", self.vgg16_features(a), self.vgg16_features(b))

    def dists(self, a: Tensor, b: Tensor) -> Tensor:
        """DISTS at full size, of pictures [B, 3, H, W] in [0, 1] -> [B]; 0 when equal.

        The authors' demonstration halves the pictures to 256 pixels first; codec papers do not.
        """
        check_pictures("dists", a, b)
        return self.compare("dists", self.dists_features(a), self.dists_features(b))

    def features(self, metric: str, x: Tensor) -> Taps:
        """What `metric` compares of a picture: to be kept where one reference meets many rivals."""
        if metric not in METRICS:
            raise ArgumentError(f"metric: {metric!r} is none of {', '.join(METRICS)}")
        extract = {
            "lpips_alex": self.alexnet_features,
            "lpips_vgg": self.vgg16_features,
            "dists": self.dists_features,
        }
        return extract[metric](x)

    def compare(self, metric: str, a: Taps, b: Taps) -> Tensor:
        """`metric` from the `features` of two batches of B pictures -> [B]."""
        heads = self._weights("heads")
        if metric == "dists":
            return _dists(a, b, heads["dists.alpha"], heads["dists.beta"])
        return _lpips(a, b, [heads[f"{metric}.lin{k}"] for k in range(len(a))])

    def _vgg16(self, x: Tensor, pool: Pool) -> Taps:
        weights, taps = self._weights("vgg16"), []
        for block, layers in enumerate(_VGG16):
            if block:
                x = pool(x)
            for layer in layers:
                x = relu(conv2d(x, *_layer(weights, layer), 1, 1))
            taps.append(x)
        return tuple(taps)

    def _weights(self, network: str) -> dict[str, Tensor]:
        if network not in self._loaded:
            from safetensors.torch import load_file

            path = self.folder / FILES[network]
            if not path.is_file():
                unmet = ", ".join(metric for metric in METRICS if network in NEEDS[metric])
                raise BackendError(
                    f"{self.folder} has no {FILES[network]}, which {unmet} need; "
                    "docs/evaluation.md says how to build it"
                )
            tensors = load_file(str(path), device=str(self.device))
            self._loaded[network] = {name: t.float() for name, t in tensors.items()}
        return self._loaded[network]


class Reference:
    """A picture whose features are computed once and compared with many decoded ones.

    Args:
        perceptual: the networks.
        image: the original, [H, W, 3], uint8.
    """

    def __init__(self, perceptual: Perceptual, image: Pixels) -> None:
        self._perceptual = perceptual
        self._x = to_tensor(image).to(perceptual.device)
        self._features: dict[str, Taps] = {}

    def scores(self, decoded: Pixels) -> dict[str, float | None]:
        """`METRICS` of `decoded`; None where the network is missing or a side is under 32."""
        y = to_tensor(decoded).to(self._perceptual.device)
        scores: dict[str, float | None] = dict.fromkeys(METRICS)
        if min(y.shape[-2:]) < MIN_SIDE:
            return scores
        with torch.no_grad():
            for metric in self._perceptual.available:
                if metric not in self._features:
                    self._features[metric] = self._perceptual.features(metric, self._x)
                rival = self._perceptual.features(metric, y)
                score = self._perceptual.compare(metric, self._features[metric], rival)
                scores[metric] = float(score[0])
        return scores


def to_tensor(image: Pixels) -> Tensor:
    """A uint8 picture [H, W, 3] as a float tensor [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).float() / 255


def check_pictures(name: str, *pictures: Tensor) -> None:
    """Raise unless all are float tensors [B, 3, H, W] of one shape with H and W >= 32."""
    for x in pictures:
        if not x.is_floating_point():
            raise ArgumentError(f"{name} takes float pictures in [0, 1], got {x.dtype}")
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"{name} takes pictures [B, 3, H, W], H and W >= {MIN_SIDE}; got {list(x.shape)}"
            )
        if x.shape != pictures[0].shape:
            raise ShapeError(
                f"{name} takes two pictures of one shape; got {[list(t.shape) for t in pictures]}"
            )


def _layer(weights: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    return weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]


def _normalised(x: Tensor) -> Tensor:
    return (x - x.new_tensor(_MEAN)[:, None, None]) / x.new_tensor(_STD)[:, None, None]


def _l2_pool(x: Tensor) -> Tensor:
    """Root of the mean square under a 3x3 Hanning window, stride 2."""
    taps = x.new_tensor([0.25, 0.5, 0.25])
    window = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    return (conv2d(x * x, window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _unit(x: Tensor) -> Tensor:
    """Features of each place on the unit sphere; a place without any stays zero.

    The root's infinite gradient there ends in a ReLU that did not fire, whose own is zero.
    """
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _lpips(a: Taps, b: Taps, heads: list[Tensor]) -> Tensor:
    distances = [
        ((_unit(p) - _unit(q)).square() * head[:, None, None]).sum(1).mean((1, 2))
        for p, q, head in zip(a, b, heads, strict=True)
    ]
    return torch.stack(distances).sum(0)


def _dists(a: Taps, b: Taps, alpha: Tensor, beta: Tensor) -> Tensor:
    total = alpha.sum() + beta.sum()
    widths = [p.shape[1] for p in a]
    similarity: Any = 0.0
    for p, q, texture, structure in zip(a, b, alpha.split(widths), beta.split(widths), strict=True):
        mean_p, mean_q = p.mean((2, 3)), q.mean((2, 3))
        var_p, var_q = p.var((2, 3), correction=0), q.var((2, 3), correction=0)
        cov = (p * q).mean((2, 3)) - mean_p * mean_q
        luminance = (2 * mean_p * mean_q + 1e-6) / (mean_p**2 + mean_q**2 + 1e-6)
        pattern = (2 * cov + 1e-6) / (var_p + var_q + 1e-6)
        similarity = similarity + (texture * luminance + structure * pattern).sum(1)
    return 1 - similarity / total
