# SPDX-License-Identifier: Apache-2.0
"""LPIPS and DISTS: the formulas on narrow random networks, published answers on the real ones.

The real networks are not shipped; set OTCUDA_NETWORKS to their folder to run those tests.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from otcuda.errors import ArgumentError, BackendError, ShapeError  # noqa: E402
from otcuda.evaluation.networks import FILES, METRICS, Perceptual, Reference, to_tensor  # noqa: E402

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
WIDTHS = (4, 5, 6, 7, 8)


def conv(inputs, outputs, kernel=3, stride=1, padding=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding)


def alexnet():
    """The `features` of torchvision's AlexNet, but narrow."""
    a, b, c, d, e = WIDTHS
    return nn.Sequential(
        *(conv(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(conv(a, b, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(conv(b, c), nn.ReLU(), conv(c, d), nn.ReLU(), conv(d, e), nn.ReLU()),
    )


def vgg16(pool=lambda: nn.MaxPool2d(2, 2)):
    """The `features` of torchvision's VGG-16, but narrow."""
    layers, inputs = [], 3
    for block, (width, count) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True)):
        layers += [pool()] if block else []
        for _ in range(count):
            layers += [conv(inputs, width), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A folder of random narrow networks, and the modules and heads in it."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    modules = {"alexnet": alexnet(), "vgg16": vgg16()}
    for name, module in modules.items():
        save_file(
            {f"features.{k}": v for k, v in module.state_dict().items()}, folder / FILES[name]
        )
    heads = {
        f"{metric}.lin{k}": torch.rand(width)
        for metric in ("lpips_alex", "lpips_vgg")
        for k, width in enumerate(WIDTHS)
    }
    heads |= {f"dists.{name}": torch.rand(3 + sum(WIDTHS)) for name in ("alpha", "beta")}
    save_file(heads, folder / FILES["heads"])
    return folder, modules, heads


def pictures(B=2, H=67, W=81, seed=3):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(B, 3, H, W, generator=rng), torch.rand(B, 3, H, W, generator=rng)


def taps_of(module, x, after):
    """Outputs of the layers `after` of a torchvision-like trunk."""
    taps = []
    x = (x - MEAN) / STD
    for k, layer in enumerate(module):
        x = layer(x)
        if k in after:
            taps.append(x)
    return taps


ALEXNET_TAPS = (1, 4, 7, 9, 11)
VGG16_TAPS = (3, 8, 15, 22, 29)


def test_taps_are_those_of_torchvision(narrow):
    folder, modules, _ = narrow
    perceptual = Perceptual(folder)
    x, _ = pictures()
    for got, expected in [
        (perceptual.alexnet_features(x), taps_of(modules["alexnet"], x, ALEXNET_TAPS)),
        (perceptual.vgg16_features(x), taps_of(modules["vgg16"], x, VGG16_TAPS)),
    ]:
        assert len(got) == len(expected) == 5
        for t, e in zip(got, expected, strict=True):
            assert t.std() > 0
            torch.testing.assert_close(t, e, rtol=1e-4, atol=1e-6)


class L2Pool(nn.Module):
    """DISTS's pool, by definition: root of a Hanning-weighted sum of squares, stride 2."""

    def forward(self, x):
        H, W = x.shape[2:]
        padded = nn.functional.pad(x.square(), (1, 1, 1, 1))
        taps = (0.25, 0.5, 0.25)
        total = sum(
            taps[i] * taps[j] * padded[:, :, i : i + H : 2, j : j + W : 2]
            for i in range(3)
            for j in range(3)
        )
        return (total + 1e-12).sqrt()


@pytest.mark.parametrize(("metric", "net"), [("lpips_alex", "alexnet"), ("lpips_vgg", "vgg16")])
def test_lpips_by_its_definition(narrow, metric, net):
    folder, modules, heads = narrow
    a, b = pictures()
    after = ALEXNET_TAPS if net == "alexnet" else VGG16_TAPS
    expected = torch.zeros(2)
    for k, (p, q) in enumerate(
        zip(taps_of(modules[net], a, after), taps_of(modules[net], b, after), strict=True)
    ):
        p, q = (t / (t.norm(dim=1, keepdim=True) + 1e-10) for t in (p, q))
        weighted = (p - q).square() * heads[f"{metric}.lin{k}"].view(1, -1, 1, 1)
        expected += weighted.sum(1).flatten(1).mean(1).detach()
    got = getattr(Perceptual(folder), metric)(a, b)
    assert got[0] != got[1]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_dists_by_its_definition(narrow):
    folder, modules, heads = narrow
    a, b = pictures()
    trunk = vgg16(L2Pool)
    trunk.load_state_dict(modules["vgg16"].state_dict())
    alpha, beta = heads["dists.alpha"].double(), heads["dists.beta"].double()
    total, channel = torch.zeros(2, dtype=torch.float64), 0
    for p, q in zip(
        [a, *taps_of(trunk, a, VGG16_TAPS)], [b, *taps_of(trunk, b, VGG16_TAPS)], strict=True
    ):
        p, q = p.detach().double().flatten(2), q.detach().double().flatten(2)
        for c in range(p.shape[1]):
            u, v = p[:, c], q[:, c]
            mu, mv = u.mean(1), v.mean(1)
            cov = ((u - mu[:, None]) * (v - mv[:, None])).mean(1)
            luminance = (2 * mu * mv + 1e-6) / (mu**2 + mv**2 + 1e-6)
            texture = (2 * cov + 1e-6) / (u.var(1, correction=0) + v.var(1, correction=0) + 1e-6)
            total += alpha[channel] * luminance + beta[channel] * texture
            channel += 1
    assert channel == len(alpha)
    expected = (1 - total / (alpha.sum() + beta.sum())).float()
    torch.testing.assert_close(Perceptual(folder).dists(a, b), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_pictures_score_zero_and_others_do_not(narrow, metric):
    score = getattr(Perceptual(narrow[0]), metric)
    a, b = pictures()
    assert score(a, a).abs().max() < 1e-5
    assert score(a, b).min() > 1e-3


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_that_of_finite_differences(narrow, metric):
    score = getattr(Perceptual(narrow[0]), metric)
    a, b = pictures(B=1, H=40, W=40)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(score(a, b).sum(), a)
    direction = gradient / gradient.norm()
    step = 1e-3
    with torch.no_grad():
        rise = score(a + step * direction, b) - score(a - step * direction, b)
    assert rise.item() / (2 * step) == pytest.approx(gradient.norm().item(), rel=0.02)


def test_gradient_where_no_feature_fires_is_zero(narrow, tmp_path):
    _, modules, heads = narrow
    dead = {f"features.{k}": v.clone() for k, v in modules["alexnet"].state_dict().items()}
    for name, tensor in dead.items():
        if name.endswith("bias"):
            tensor.fill_(-1e3)
    save_file(dead, tmp_path / FILES["alexnet"])
    save_file(heads, tmp_path / FILES["heads"])
    a, b = pictures(B=1)
    a.requires_grad_()
    score = Perceptual(tmp_path).lpips_alex(a, b)
    (gradient,) = torch.autograd.grad(score.sum(), a)
    assert score.item() == 0
    assert torch.equal(gradient, torch.zeros_like(a))  # and not NaN


def test_weights_are_frozen(narrow):
    perceptual = Perceptual(narrow[0])
    a, b = pictures()
    assert not perceptual.lpips_alex(a, b).requires_grad
    assert perceptual.lpips_alex(a, b.requires_grad_()).requires_grad


def test_half_precision_files_are_widened(narrow, tmp_path):
    folder, modules, _ = narrow
    state = {f"features.{k}": v.half() for k, v in modules["alexnet"].state_dict().items()}
    save_file(state, tmp_path / FILES["alexnet"])
    x, _ = pictures()
    got, expected = (Perceptual(f).alexnet_features(x)[4] for f in (tmp_path, folder))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0.02, atol=1e-3)


def test_a_missing_network_is_named(narrow, tmp_path):
    folder, _, heads = narrow
    (tmp_path / FILES["alexnet"]).write_bytes((folder / FILES["alexnet"]).read_bytes())
    save_file(heads, tmp_path / FILES["heads"])
    perceptual = Perceptual(tmp_path)
    assert perceptual.available == ("lpips_alex",)
    a, b = pictures()
    assert perceptual.lpips_alex(a, b).shape == (2,)
    for metric in ("lpips_vgg", "dists"):
        with pytest.raises(BackendError, match=r"no vgg16_features.safetensors.*evaluation\.md"):
            getattr(perceptual, metric)(a, b)
    (tmp_path / FILES["heads"]).unlink()
    assert Perceptual(tmp_path).available == ()


def test_the_folder_comes_from_the_argument_or_the_environment(narrow, tmp_path, monkeypatch):
    monkeypatch.delenv("OTCUDA_NETWORKS", raising=False)
    with pytest.raises(ArgumentError, match="OTCUDA_NETWORKS"):
        Perceptual()
    with pytest.raises(ArgumentError, match="is not a folder"):
        Perceptual(tmp_path / "nowhere")
    monkeypatch.setenv("OTCUDA_NETWORKS", str(narrow[0]))
    assert Perceptual().available == METRICS
    assert Perceptual(tmp_path).available == ()


def test_bad_pictures_are_named(narrow):
    perceptual = Perceptual(narrow[0])
    a, b = pictures()
    with pytest.raises(ShapeError, match=r"\[2, 3, 31, 81\]"):
        perceptual.lpips_alex(a[:, :, :31], b[:, :, :31])
    with pytest.raises(ShapeError, match="of one shape"):
        perceptual.dists(a, b[:1])
    with pytest.raises(ShapeError, match=r"\[3, 67, 81\]"):
        perceptual.alexnet_features(a[0])
    with pytest.raises(ArgumentError, match="uint8"):
        perceptual.lpips_vgg((a * 255).byte(), (b * 255).byte())
    with pytest.raises(ArgumentError, match="'ssim' is none of lpips_alex"):
        perceptual.features("ssim", a)


def test_reference_scores_are_the_metrics_and_its_features_are_kept(narrow, monkeypatch):
    perceptual = Perceptual(narrow[0])
    rng = np.random.default_rng(0)
    original, first, second = rng.integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    calls = []
    features = perceptual.features
    monkeypatch.setattr(perceptual, "features", lambda m, x: calls.append(m) or features(m, x))
    reference = Reference(perceptual, original)
    for decoded in (first, second):
        expected = {
            metric: getattr(perceptual, metric)(to_tensor(original), to_tensor(decoded)).item()
            for metric in METRICS
        }
        assert reference.scores(decoded) == pytest.approx(expected, abs=1e-6)
    assert sorted(calls) == sorted(3 * METRICS)  # once for the original, once a decoded picture


def test_reference_leaves_out_what_cannot_be_computed(narrow, tmp_path):
    image = np.zeros((31, 64, 3), np.uint8)
    assert Reference(Perceptual(narrow[0]), image).scores(image) == dict.fromkeys(METRICS)
    image = np.zeros((32, 64, 3), np.uint8)
    assert Reference(Perceptual(tmp_path), image).scores(image) == dict.fromkeys(METRICS)


# The real networks.

PATTERN_ANSWERS = {"lpips_alex": 0.384098, "lpips_vgg": 0.523612, "dists": 0.337938}
"""Of `patterns()`, by other code, which agrees with lpips 0.1.4 and dists-pytorch 0.1."""

KODAK_ANSWERS = {"lpips_alex": 0.24384, "lpips_vgg": 0.43667, "dists": 0.26398}
"""kodim01.png and the same as JPEG of quality 10 (4:2:0), by those packages."""


def real_networks(metric):
    folder = os.environ.get("OTCUDA_NETWORKS")
    if not folder:
        pytest.skip("OTCUDA_NETWORKS does not say where the metric networks are")
    perceptual = Perceptual(folder)
    if metric not in perceptual.available:
        pytest.skip(f"OTCUDA_NETWORKS has no network for {metric}")
    return perceptual


def patterns():
    v, u = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    a = np.stack([4 * u % 256, (3 * v + u) % 256, u * v % 251], -1)
    b = np.stack([(4 * u + 9 * v) % 256, 3 * v % 256, u * v // 2 % 251], -1)
    return a.astype(np.uint8), b.astype(np.uint8)


@pytest.mark.parametrize("metric", METRICS)
def test_known_answer_on_patterns(metric):
    score = getattr(real_networks(metric), metric)
    a, b = patterns()
    got = score(to_tensor(a), to_tensor(b)).item()
    assert got == pytest.approx(PATTERN_ANSWERS[metric], abs=1e-4)


@pytest.mark.parametrize(
    "metric",
    ["lpips_alex", *(pytest.param(m, marks=pytest.mark.slow) for m in ("lpips_vgg", "dists"))],
)
def test_known_answer_on_a_kodak_picture(metric):
    score = getattr(real_networks(metric), metric)
    root = os.environ.get("OTCUDA_DATA")
    path = Path(root or "", "kodak", "kodim01.png")
    if not root or not path.is_file():
        pytest.skip("OTCUDA_DATA has no kodak/kodim01.png")
    original = Image.open(path).convert("RGB")
    file = io.BytesIO()
    original.save(file, "JPEG", quality=10)
    decoded = np.asarray(Image.open(file))
    with torch.no_grad():
        got = score(to_tensor(np.asarray(original)), to_tensor(decoded)).item()
    assert got == pytest.approx(KODAK_ANSWERS[metric], abs=2e-3)
