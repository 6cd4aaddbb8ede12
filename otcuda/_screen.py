# SPDX-License-Identifier: Apache-2.0
"""When power_argmax goes through the tensor cores: csrc/cuda/power_argmax_screen.h.

The certificate of the screen rests on how far sums of tensor cores may be off. So each device is
asked once, at its first use, whether it gives the bits of the plain kernel: by the products of
warpgroups where it has them, by mma.sync else. A kernel that differs is named in a warning, and the
next one in line is used.
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
_trusted: dict[int, str | None] = {}  # kernel by index of the device


def screens(native: Any, x: Any, y: Any) -> str | None:
    """The kernel that is to screen this call, or None: x [B, D], y [N, D] on a CUDA device.

    The first call on a device waits for it; within a graph capture it answers None instead.
    """
    torch = sys.modules["torch"]
    (B, D), N = x.shape, y.shape[0]
    fits = B >= _LEAST_B and _LEAST_N <= N <= _MOST_N and _LEAST_D <= D <= _MOST_D
    if x.dtype != torch.float32 or not fits:
        return None
    device = x.device.index
    if device not in _trusted:
        if torch.cuda.get_device_capability(device) not in _CAPABILITIES:
            _trusted[device] = None
        elif torch.cuda.is_current_stream_capturing():
            return None
        else:
            _trusted[device] = _first_that_agrees(native, x)
    return _trusted[device]


def _first_that_agrees(native: Any, like: Any) -> str | None:
    """The fastest kernel that gives the bits of the plain one on the device of `like`."""
    kernels = ["power_argmax_screen"]
    if native.power_argmax_has_wgmma(like.device.index):
        kernels.insert(0, "power_argmax_wgmma")
    for kernel in kernels:
        if all(_agrees(native, like, kernel, D) for D in (32, 64, 128)):  # each width they have
            return kernel
        warnings.warn(
            f"power_argmax: {kernel} does not give the bits of the plain kernel on this device: "
            "its tensor cores do not round as the certificate assumes. A slower kernel is used. "
            "Please report the card.",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _agrees(native: Any, like: Any, kernel: str, D: int) -> bool:
    """Whether a kernel gives the bits of the plain one on the device of `like`."""
    torch = sys.modules["torch"]
    generator = torch.Generator().manual_seed(D)
    y = torch.randn((1500, D), generator=generator)
    x = y[:300] + 0.5 * torch.randn((300, D), generator=generator)
    h = -(y**2).sum(1) / 2
    y[1400:], h[1400:] = y[:100], h[:100]  # ties
    x, y, h = (tensor.to(like.device) for tensor in (x, y, h))
    plain, screened = (run(native, name, x, y, h) for name in ("power_argmax", kernel))
    return all(torch.equal(a, b) for a, b in zip(plain, screened, strict=True))


def run(native: Any, kernel: str, x: Any, y: Any, h: Any) -> tuple[Any, Any]:
    """Value and index by one of the three kernels; contiguous float32 tensors on a device."""
    torch = sys.modules["torch"]
    value = torch.empty_like(x[:, 0])
    index = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    sizes = (x.shape[0], *y.shape)
    if kernel == "power_argmax":
        count = native.power_argmax_workspace(False, *sizes)
    else:
        count = native.power_argmax_screen_workspace(*sizes)
    workspace = torch.empty(count, dtype=torch.uint8, device=x.device)
    given = map(torch.utils.dlpack.to_dlpack, (x, y, h, value, index, workspace))
    getattr(native, kernel)(*given, torch.cuda.current_stream(x.device).cuda_stream)
    return value, index
