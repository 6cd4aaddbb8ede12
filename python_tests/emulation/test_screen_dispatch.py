# SPDX-License-Identifier: Apache-2.0
"""A device is trusted with the screen when it gives the bits of the plain kernel, and only then."""

from __future__ import annotations

import types

import pytest
from emulation.capsule import Capsule

from otcuda import _screen

torch = pytest.importorskip("torch")


class FakeNative:
    """The kernels, in torch; those of `wrong` are off by one sample."""

    def __init__(self, wrong=(), wgmma=True):
        self.wrong, self.wgmma, self.calls = wrong, wgmma, []

    def power_argmax_has_wgmma(self, device):
        return self.wgmma

    def power_argmax_workspace(self, *sizes):
        assert len(sizes) == 4
        return 256

    def power_argmax_screen_workspace(self, *sizes):
        assert len(sizes) == 3
        return 256

    def power_argmax(self, *given):
        self.calls.append("plain")
        self._run(*given)

    def power_argmax_screen(self, *given):
        self.calls.append("screen")
        self._run(*given)[7] += int("screen" in self.wrong)

    def power_argmax_wgmma(self, *given):
        self.calls.append("wgmma")
        self._run(*given)[7] += int("wgmma" in self.wrong)

    def _run(self, *given):
        x, y, h, value, index = map(torch.from_dlpack, map(Capsule, given[:5]))
        best = (x @ y.T + h).max(1)
        value[:], index[:] = best.values, best.indices
        return index


@pytest.fixture
def card(monkeypatch):
    """Properties of a card that can be changed."""
    card = types.SimpleNamespace(capability=(9, 0), capturing=False)
    monkeypatch.setattr(_screen, "_trusted", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card.capability)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: card.capturing)
    stream = types.SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    return card


X, Y = torch.zeros(1024, 64), torch.zeros(8192, 64)


@pytest.mark.parametrize("wgmma", [True, False])
def test_a_card_that_agrees_is_trusted_and_asked_once(wgmma, card):
    native, name = FakeNative(wgmma=wgmma), "wgmma" if wgmma else "screen"
    for _ in range(2):
        assert _screen.screens(native, X, Y) == f"power_argmax_{name}"
    assert native.calls == ["plain", name] * 3  # rows of 32, 64 and 128 numbers


def test_a_card_whose_warpgroups_differ_keeps_to_mma(card):
    native = FakeNative(wrong=("wgmma",))
    with pytest.warns(RuntimeWarning, match="power_argmax_wgmma does not give the bits"):
        assert _screen.screens(native, X, Y) == "power_argmax_screen"
    assert _screen.screens(native, X, Y) == "power_argmax_screen"
    assert native.calls == ["plain", "wgmma"] + ["plain", "screen"] * 3


def test_a_card_that_differs_is_named_and_left_alone(card):
    native = FakeNative(wrong=("screen",), wgmma=False)
    with pytest.warns(RuntimeWarning, match="do not round as the certificate assumes"):
        assert not _screen.screens(native, X, Y)
    assert not _screen.screens(native, X, Y)
    assert native.calls == ["plain", "screen"]


def test_small_problems_and_other_cards_keep_the_plain_kernel(card):
    native = FakeNative()
    for x, y in [(X[:1023], Y), (X, Y[:8191]), (X[:, :23], Y[:, :23]), (X.double(), Y.double())]:
        assert not _screen.screens(native, x, y)
    card.capability = (8, 9)
    assert not _screen.screens(native, X, Y)
    assert native.calls == []


def test_nothing_waits_during_a_capture(card):
    native = FakeNative()
    card.capturing = True
    assert not _screen.screens(native, X, Y)
    card.capturing = False
    assert _screen.screens(native, X, Y)
