# SPDX-License-Identifier: Apache-2.0
"""A device is trusted with the screen when it gives the bits of the plain kernel, and only then."""

from __future__ import annotations

import types

import pytest
from emulation.capsule import Capsule

from otcuda import _screen

torch = pytest.importorskip("torch")


class FakeNative:
    """Both kernels, in torch; the screened one may be off by one sample."""

    def __init__(self, wrong):
        self.wrong, self.calls = wrong, []

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
        self._run(*given)[7] += int(self.wrong)

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


def test_a_card_that_agrees_is_trusted_and_asked_once(card):
    native = FakeNative(wrong=False)
    assert _screen.screens(native, X, Y)
    assert _screen.screens(native, X, Y)
    assert native.calls == ["plain", "screen"]


def test_a_card_that_differs_is_named_and_left_alone(card):
    native = FakeNative(wrong=True)
    with pytest.warns(RuntimeWarning, match="do not round as the certificate assumes"):
        assert not _screen.screens(native, X, Y)
    assert not _screen.screens(native, X, Y)
    assert native.calls == ["plain", "screen"]


def test_small_problems_and_other_cards_keep_the_plain_kernel(card):
    native = FakeNative(wrong=False)
    for x, y in [(X[:1023], Y), (X, Y[:8191]), (X[:, :23], Y[:, :23]), (X.double(), Y.double())]:
        assert not _screen.screens(native, x, y)
    card.capability = (8, 9)
    assert not _screen.screens(native, X, Y)
    assert native.calls == []


def test_nothing_waits_during_a_capture(card):
    native = FakeNative(wrong=False)
    card.capturing = True
    assert not _screen.screens(native, X, Y)
    card.capturing = False
    assert _screen.screens(native, X, Y)
