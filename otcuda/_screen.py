# SPDX-License-Identifier: Apache-2.0
"""When power_argmax goes through the tensor cores: csrc/cuda/power_argmax_screen.h.

The certificate of the screen rests on how far sums of tensor cores may be off. So each device is
asked once, at its first use, whether it gives the bits of the plain kernel; one that does not is
named in a warning and keeps to the plain kernel.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

# Cards whose bfloat16 rate is at least eight times that of float32; elsewhere little is to be won
# (predicted: docs/cuda.md).
_CAPABILITIES = ((8, 0), (9, 0), (10, 0))
_LEAST_B, _LEAST_N = 1024, 8192  # below, packing and launches weigh more
_LEAST_D, _MOST_D = 24, 128
_MOST_N = 1 << 24
_trusted: dict[int, bool] = {}  # by index of the device


def screens(native: Any, x: Any, y: Any) -> bool:
    """Whether this call is to be screened: x [B, D], y [N, D], tensors on a CUDA device.

    The first call on a device waits for it; within a graph capture it answers no instead.
    """
    torch = sys.modules["torch"]
    (B, D), N = x.shape, y.shape[0]
    fits = B >= _LEAST_B and _LEAST_N <= N <= _MOST_N and _LEAST_D <= D <= _MOST_D
    if x.dtype != torch.float32 or not fits:
        return False
    device = x.device.index
    if device not in _trusted:
        if torch.cuda.get_device_capability(device) not in _CAPABILITIES:
            _trusted[device] = False
        elif torch.cuda.is_current_stream_capturing():
            return False
        else:
            _trusted[device] = _agrees(native, x)
    return _trusted[device]


def _agrees(native: Any, like: Any) -> bool:
    """Whether both paths give the same bits on the device of `like`; a warning if they do not."""
    torch = sys.modules["torch"]
    generator = torch.Generator().manual_seed(0)
    y = torch.randn((1500, 64), generator=generator)
    x = y[:300] + 0.5 * torch.randn((300, 64), generator=generator)
    h = -(y**2).sum(1) / 2
    y[1400:], h[1400:] = y[:100], h[:100]  # ties
    x, y, h = (tensor.to(like.device) for tensor in (x, y, h))
    plain = run(native, "power_argmax", x, y, h)
    screened = run(native, "power_argmax_screen", x, y, h)
    same = all(torch.equal(a, b) for a, b in zip(plain, screened, strict=True))
    if not same:
        warnings.warn(
            "power_argmax: the tensor cores of this device do not round as the certificate "
            "assumes; the plain kernel is used. Please report the card.",
            RuntimeWarning,
            stacklevel=2,
        )
    return same


def run(native: Any, kernel: str, x: Any, y: Any, h: Any) -> tuple[Any, Any]:
    """Value and index by one of the two kernels; contiguous float32 tensors on a device."""
    torch = sys.modules["torch"]
    value = torch.empty_like(x[:, 0])
    index = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    sizes = (x.shape[0], *y.shape)
    if kernel == "power_argmax":
        sizes = (False, *sizes)
    count = getattr(native, f"{kernel}_workspace")(*sizes)
    workspace = torch.empty(count, dtype=torch.uint8, device=x.device)
    given = map(torch.utils.dlpack.to_dlpack, (x, y, h, value, index, workspace))
    getattr(native, kernel)(*given, torch.cuda.current_stream(x.device).cuda_stream)
    return value, index
