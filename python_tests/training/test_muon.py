# SPDX-License-Identifier: Apache-2.0
"""The optimiser of the convolutions: orthogonal steps of the length that was asked for."""

from __future__ import annotations

import pytest
import torch

from otcuda.training.muon import Muon, orthogonalised


def uneven(m, n, seed=0):
    """A matrix [m, n] whose singular values span three decades, with its singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(m, min(m, n), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(n, min(m, n), generator=generator))
    return left * torch.logspace(0, -3, min(m, n)) @ right.T, left, right


@pytest.mark.parametrize(("m", "n"), [(24, 216), (216, 24), (32, 32)])
def test_singular_vectors_stay_and_values_become_one(m, n):
    matrix, left, right = uneven(m, n)
    result = orthogonalised(matrix)
    inner = left.T @ result @ right
    values = inner.diagonal()
    large = torch.logspace(0, -3, min(m, n)) > 0.01  # five rounds do not lift the least of them
    assert values[large].min() > 0.6
    assert values.max() < 1.25
    assert (inner - torch.diag(values)).abs().max() < 1e-3


def test_a_step_is_as_long_as_its_rate():
    weight = torch.nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimiser = Muon([weight], lr=0.5)
    weight.grad = uneven(16, 72)[0].reshape(16, 8, 3, 3) * 1e3
    optimiser.step()
    length = torch.linalg.matrix_norm(weight.detach().reshape(16, -1), 2)
    assert 0.5 * 0.6 < length < 0.5 * 1.25
    assert (weight.detach().reshape(16, -1) * weight.grad.reshape(16, -1)).sum() < 0
