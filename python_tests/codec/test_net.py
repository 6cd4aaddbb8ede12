# SPDX-License-Identifier: Apache-2.0
"""The picture networks: the bits of the contract at every level, close to torch, polite."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time

import numpy as np
import pytest
import torch
from decoders import net as second

import otcuda
from otcuda import _nets
from otcuda._ops import native
from otcuda.codec import load_model, pictures_torch
from otcuda.codec.head import Noise, PerceptualHead
from otcuda.codec.networks import Codec, CodecConfig
from otcuda.codec.pictures import noise_of
from otcuda.codec.quantiser import step_size

# Widths beside whole blocks of 16, an even and an odd number of inputs, no block somewhere.
ODD = CodecConfig(
    latents=5, width8=17, width16=7, analysis_blocks=(1, 0), synthesis_blocks=(0, 1), groups=(2, 3)
)
MORE = CodecConfig(
    latents=8, width8=8, width16=18, analysis_blocks=(0, 2), synthesis_blocks=(2, 0), groups=(2, 3)
)
FILTERED = dataclasses.replace(ODD, filter_width=18, filter_blocks=1)
DEEP = dataclasses.replace(ODD, filter_width=4, filter_blocks=12)  # sees 52 pixels farther
UNMIXED = dataclasses.replace(MORE, filter_width=7, filter_blocks=0)


def awake(config):
    """A codec none of whose layers is zero, in float64."""
    torch.manual_seed(3)
    net = Codec(config).double().eval().requires_grad_(False)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim > 1 else 0.3)
        parameter.copy_(parameter.float())
    return net


def awake_head(config):
    torch.manual_seed(4)
    head = PerceptualHead(config).double().eval().requires_grad_(False)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        parameter.copy_(parameter.float())
    return head


def arrays_of(module):
    return {name: p.float().numpy() for name, p in module.state_dict().items()}


def latents_of(M, h, w, seed=0):
    return np.random.default_rng(seed).laplace(0, 90, (M, h, w)).astype(np.float32)


def picture_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# --- the contract ---------------------------------------------------------------------------------


def test_the_second_implementation_rounds_once():
    a, b, c = f = np.array([1 + 2**-12, 1 + 2**-12, -(1 + 2**-11)], np.float32)
    assert second.fma(a, b, c) == np.float32(2**-24)
    assert a * b + c == 0
    rng = np.random.default_rng(0)
    for _ in range(200):  # against whole numbers
        a, b = rng.integers(-(2**24), 2**24, 2)
        c = int(rng.integers(-(2**24), 2**24)) << int(rng.integers(0, 40))
        got = second.fma(*(np.float32(v) for v in (a, b, c)))
        exact = int(a) * int(b) + c
        up, down = (np.nextafter(got, np.float32(s * np.inf)) for s in (1, -1))
        error = abs(exact - int(got))
        assert error <= min(abs(exact - int(up)), abs(exact - int(down)))
    assert f.dtype == np.float32


PICTURE = picture_of(70, 150)
GRID = (4, 20)  # two windows of the head wide, so that one has a neighbour


@functools.cache
def by_the_contract(config):
    """Latents of PICTURE; features, planes and noise of other latents; slow, so done once."""
    codec = awake(config)
    latents = second.analysis(arrays_of(codec.analysis), PICTURE)
    given = latents_of(config.latents, *GRID)
    known = second.synthesis(arrays_of(codec.synthesis), given, 8.25)
    return latents, *known, noise_of(7, GRID, *(slice(0, n) for n in GRID))


@functools.cache
def perceived_by_the_contract(config, realism):
    _, features, x0, noise = by_the_contract(config)
    return second.perception(arrays_of(awake_head(config)), features, x0, noise, realism)


@pytest.mark.parametrize("config", [ODD, MORE], ids=["odd", "more"])
def test_analysis_is_the_contract_bit_for_bit(config, simd_level, threads):
    net = _nets.load_net_analysis(arrays_of(awake(config).analysis))
    np.testing.assert_array_equal(_nets.net_analysis(net, PICTURE), by_the_contract(config)[0])


@pytest.mark.parametrize(
    "config", [ODD, MORE, FILTERED, UNMIXED], ids=["odd", "more", "filtered", "unmixed"]
)
def test_synthesis_is_the_contract_bit_for_bit(config, simd_level, threads):
    net = _nets.load_net_synthesis(arrays_of(awake(config).synthesis))
    got = _nets.net_synthesis(net, latents_of(config.latents, *GRID), 8.25)
    np.testing.assert_array_equal(got, by_the_contract(config)[2])


@pytest.mark.parametrize("config", [ODD, MORE, FILTERED], ids=["odd", "more", "filtered"])
@pytest.mark.parametrize("realism", [0.0, 0.3, 1.0])
def test_perception_is_the_contract_bit_for_bit(config, realism, simd_level):
    net = _nets.load_net_synthesis(arrays_of(awake(config).synthesis))
    head = _nets.load_net_head(arrays_of(awake_head(config)))
    perception = _nets.Perception(head, *by_the_contract(config)[3], realism)
    got = _nets.net_synthesis(net, latents_of(config.latents, *GRID), 8.25, perception)
    np.testing.assert_array_equal(got, perceived_by_the_contract(config, realism))
    x0 = by_the_contract(config)[2]
    assert np.array_equal(got, x0) if realism == 0 else np.abs(got - x0).mean() > 1e-3


@pytest.mark.parametrize("shape", [(36, 520), (1040, 12)], ids=["wide", "tall"])
def test_stripes_of_the_filter_leave_no_trace(shape, threads):
    """A picture of several stripes has the bits of a part of it, whose stripes end elsewhere."""
    net = _nets.load_net_synthesis(arrays_of(awake(FILTERED).synthesis))
    latents = latents_of(FILTERED.latents, *shape)
    whole = _nets.net_synthesis(net, latents, 8.25)
    cut = 12  # positions, and of them 8 that see the new edge
    part = _nets.net_synthesis(net, latents[:, cut:], 8.25)
    np.testing.assert_array_equal(whole[:, 16 * (cut + 8) :], part[:, 16 * 8 :])
    assert not np.array_equal(whole[:, 16 * cut :], part)


def test_pictures_are_the_contract_bit_for_bit(simd_level):
    planes = np.random.default_rng(0).normal(0, 2.5, (3, 64, 64)).astype(np.float32)
    got = _nets.net_picture(planes, (0, 0), (64, 64), False)
    np.testing.assert_array_equal(got, second.picture(planes))
    assert {0, 255} <= set(got.ravel().tolist())
    np.testing.assert_array_equal(_nets.net_picture(planes, (3, 5), (7, 9), False), got[3:10, 5:14])
    grey = _nets.net_picture(planes, (0, 0), (64, 64), True)
    assert (grey == grey[:, :, :1]).all()
    odd = np.full((3, 64, 64), np.nan, np.float32)
    odd[:, :32] = np.inf
    assert set(_nets.net_picture(odd, (0, 0), (64, 64), True).ravel().tolist()) == {0, 255}


def test_shipped_weights_give_the_same_bits_at_every_level_and_number_of_threads():
    model, rgb = load_model(), picture_of(100, 170)
    latents = latents_of(64, 8, 12)
    seen = set()
    try:
        for level in native.simd_levels():
            for n in (1, 2, 5):
                native.set_simd_level(level)
                native.set_num_threads(n)
                seen.add(_nets.net_analysis(model.analysis, rgb).tobytes())
                seen.add(_nets.net_synthesis(model.synthesis, latents, 8.0).tobytes())
    finally:
        native.set_simd_level("auto")
        native.set_num_threads(0)
    assert len(seen) == 2


def test_steps_do_not_depend_on_the_libm():
    """2^(3 + k / 32) lies far from the middle between two floats: any power function will do."""
    for k in range(256):
        near = float(step_size(k))
        gap = float(np.spacing(np.float32(near)))
        # (near +- gap / 2)^32 against 2^(96 + k), in whole numbers of 2^-30.
        low, high = (int((near + s * gap * 0.499) * 2**30) for s in (-1, 1))
        assert low**32 < 2 ** (96 + k + 30 * 32) < high**32


# --- beside torch ---------------------------------------------------------------------------------


def errors(native_values, net, call):
    """Root mean squares: our error and torch's, both against float64, and the size."""
    with torch.no_grad():
        exact = call(net.double())[0].numpy()
        plain = call(net.float())[0].double().numpy()
    rms = [np.sqrt(np.mean(np.square(v))) for v in (native_values - exact, plain - exact, exact)]
    assert rms[1] > 0
    return rms


@pytest.mark.parametrize("config", [ODD, MORE, FILTERED], ids=["odd", "more", "filtered"])
def test_errors_are_those_of_float32(config):
    """Winograd's tiles cost up to 6 times torch's error on random weights, none on ours."""
    codec, rgb = awake(config), picture_of(128, 192)
    latents, level = latents_of(config.latents, 8, 12), torch.full((1,), 8.25)
    ours = _nets.net_analysis(_nets.load_net_analysis(arrays_of(codec.analysis)), rgb)
    ours, torchs, size = errors(
        ours.astype(float),
        codec.analysis,
        lambda net: net(pictures_torch.padded_planes(rgb).to(net.klt.weight)),
    )
    assert ours < min(8 * torchs, 5e-6 * size)
    planes = _nets.net_synthesis(
        _nets.load_net_synthesis(arrays_of(codec.synthesis)), latents, 8.25
    )
    ours, torchs, size = errors(
        64.0 * planes,
        codec.synthesis,
        lambda net: net(torch.from_numpy(latents)[None].to(net.klt.weight), level),
    )
    assert ours < min(8 * torchs, 5e-6 * size)


@pytest.mark.parametrize("config", [ODD, MORE, DEEP], ids=["odd", "more", "deep"])
def test_the_halo_of_torch_is_as_wide_as_the_networks_see(config):
    codec, far = awake(config), pictures_torch.reach(config)
    size, middle = 4 * far, 2 * far
    latents = torch.zeros(1, config.latents, size // 16, size // 16, dtype=torch.double)
    planes = torch.zeros(1, 3, size, size, dtype=torch.double)
    level = torch.full((1,), 8.25, dtype=torch.double)
    for net, x, at in (
        (lambda v: codec.synthesis(v, level)[0, :, middle, middle], latents, 16),
        (lambda v: codec.analysis(v)[0, :, middle // 16, middle // 16], planes, 1),
    ):
        (gradient,) = torch.autograd.grad(net(x.requires_grad_()).sum(), x)
        seen = gradient[0].abs().sum(0).nonzero() * at
        assert middle - far < seen.min() + at - 1
        assert seen.max() < middle + far
        assert seen.max() - seen.min() > 32  # more than the place itself


def test_the_head_is_that_of_torch():
    codec, head = awake(ODD), awake_head(ODD)
    latents, level = latents_of(5, 8, 20), torch.full((1,), 8.25)
    noise = noise_of(7, (8, 20), slice(0, 8), slice(0, 20))
    got = 64.0 * _nets.net_synthesis(
        _nets.load_net_synthesis(arrays_of(codec.synthesis)),
        latents,
        8.25,
        _nets.Perception(_nets.load_net_head(arrays_of(head)), *noise, 0.6),
    )
    x = torch.from_numpy(latents)[None].double()
    whole = Noise(*(torch.from_numpy(n)[None].double() for n in noise))
    features, x0 = codec.synthesis.features(x, level.double()), codec.synthesis(x, level.double())
    exact = torch.lerp(x0.double(), head(features, x0.double(), whole).double(), 0.6)[0].numpy()
    assert np.abs(exact - x0[0].numpy()).mean() > 1
    np.testing.assert_allclose(got, exact, rtol=0, atol=2e-5 * np.abs(exact).max())


def test_files_are_those_of_torch_and_pixels_within_one():
    rgb = np.add.outer(np.arange(160), np.arange(224))[:, :, None] * np.array([1, 2, 3]) // 6
    rgb = (rgb % 256).astype(np.uint8)
    given = {"bytes": 300, "effort": 0, "model": otcuda.codec.load_model()}
    data = otcuda.codec.compress(rgb, **given)
    assert data == otcuda.codec.compress(rgb, **given, engine="torch")
    for realism in (0.0, 0.4, 1.0):
        ours, torchs = (
            otcuda.codec.decompress(data, engine=engine, realism=realism)
            for engine in ("native", "torch")
        )
        assert np.abs(ours.astype(int) - torchs).max() <= 1
        assert (ours != torchs).mean() < 1e-3
    with pytest.raises(otcuda.ArgumentError, match="engine is 'jax'"):
        otcuda.codec.decompress(data, engine="jax")


# --- errors, interrupts ---------------------------------------------------------------------------


@pytest.mark.parametrize("config", [ODD, FILTERED], ids=["odd", "filtered"])
def test_wrong_weights_are_named(config):
    arrays = arrays_of(awake(config).synthesis)
    load = _nets.load_net_synthesis
    with pytest.raises(otcuda.ArgumentError, match="no array klt"):
        load({})
    with pytest.raises(otcuda.ArgumentError, match=r"no array coarse\.2"):
        load({k: v for k, v in arrays.items() if k != "coarse.2.weight"})
    for name in arrays:
        with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match=r"\w+\.(weight|bias)"):
            load({**arrays, name: arrays[name][:-1]})
        with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match=r"\w+\.(weight|bias)"):
            load({**arrays, name: arrays[name][None]})
    analysis = arrays_of(awake(ODD).analysis)
    head = arrays_of(awake_head(ODD))
    for name in head:
        with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match=r"\w+\.(weight|bias)"):
            _nets.load_net_head({**head, name: head[name][:-1]})
    for name in analysis:
        with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match=r"\w+\.(weight|bias)"):
            _nets.load_net_analysis({**analysis, name: analysis[name][:-1]})


@pytest.mark.parametrize("shape", [(5, 4), (5, 0, 4), (5, 4, 6), (4, 4, 4), (1, 5, 4, 4)])
def test_wrong_latents_are_named(shape):
    net = _nets.load_net_synthesis(arrays_of(awake(ODD).synthesis))
    with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match="latents"):
        _nets.net_synthesis(net, np.zeros(shape, np.float32), 8.0)


@pytest.mark.parametrize(
    ("corner", "shape"), [((-1, 0), (4, 4)), ((0, 61), (4, 4)), ((0, 0), (65, 4))]
)
def test_wrong_cuts_are_named(corner, shape):
    with pytest.raises(otcuda.ArgumentError, match="within planes"):
        _nets.net_picture(np.zeros((3, 64, 64), np.float32), corner, shape, False)


@pytest.mark.parametrize("rgb", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), "x"])
def test_wrong_pictures_are_named(rgb):
    net = _nets.load_net_analysis(arrays_of(awake(ODD).analysis))
    with pytest.raises((otcuda.ShapeError, otcuda.ArgumentError), match="rgb"):
        _nets.net_analysis(net, np.asarray(rgb))


def test_progress_rises_and_false_stops(threads):
    model, latents = load_model(), latents_of(64, 64, 64)
    heard = []
    _nets.net_synthesis(model.synthesis, latents, 8.0, None, heard.append)
    assert len(heard) > 2
    assert heard == sorted(heard)
    assert 0 <= heard[0] < heard[-1] <= 1
    with pytest.raises(otcuda.Interrupted):
        _nets.net_synthesis(model.synthesis, latents, 8.0, None, lambda share: share < 0.3)


def test_the_clock_is_heard_inside_a_layer_even_at_the_slowest_level():
    """One block of one layer takes seconds at the portable level; the callback must not wait."""
    model, latents, pauses = load_model(), latents_of(64, 16, 16), []
    last = time.thread_time()

    def listen(share):
        nonlocal last
        now = time.thread_time()
        pauses.append(now - last)
        last = now
        return len(pauses) < 15

    native.set_simd_level("portable")
    native.set_num_threads(1)
    try:
        last = time.thread_time()
        with pytest.raises(otcuda.Interrupted):
            _nets.net_synthesis(model.synthesis, latents, 8.0, None, listen)
    finally:
        native.set_simd_level("auto")
        native.set_num_threads(0)
    assert max(pauses) < 0.1


def test_handles_may_be_shared_by_threads():
    model = load_model()
    latents = [latents_of(64, 8, 8, seed) for seed in range(4)]
    alone = [_nets.net_synthesis(model.synthesis, part, 8.0) for part in latents]
    together = [None] * 4

    def work(k):
        together[k] = _nets.net_synthesis(model.synthesis, latents[k], 8.0)

    team = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for member in team:
        member.start()
    for member in team:
        member.join()
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
