# SPDX-License-Identifier: Apache-2.0
"""What a training step is measured by."""

import torch
from torch import nn

from otcuda.training.utilisation import convolution_peak, products


def test_products_are_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, stride=2))
    x = torch.zeros(2, 3, 10, 6)
    want = 2 * 10 * 6 * 8 * 27 + 2 * 5 * 3 * 4 * 8
    assert products(lambda: net(x)) == want
    assert products(lambda: (net(x), net(x))) == 2 * want
    assert products(lambda: nn.functional.conv_transpose2d(x, torch.ones(3, 5, 3, 3))) == (
        2 * 10 * 6 * 3 * 5 * 9
    )


def test_the_peak_is_that_of_a_cpu():
    assert 1e8 < convolution_peak(torch.float32, rounds=1) < 1e13
