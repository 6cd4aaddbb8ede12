# SPDX-License-Identifier: Apache-2.0
"""The ops that move heights: sections of `_ops.py` in a file of their own."""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from otcuda._arrays import (
    NumpyArrays,
    TorchArrays,
    as_numpy,
    check_floats,
    check_torch,
    check_writable,
    cuda_stream,
    cuda_workspace,
    is_torch,
    needs_dispatcher,
    on_cuda,
)
from otcuda._ops import define, native, registered, registers, respect_torch_threads
from otcuda.errors import ArgumentError, Interrupted, check_shapes

# --- heights_adam_step ------------------------------------------------------------------------


def heights_adam_step(
    h: Any,
    m: Any,
    v: Any,
    mass: Any,
    nu: Any,
    step: int,
    *,
    lr: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step of Adam on the heights, in place: down the gradient `mass - nu`, without a Hessian.

    The energy `E[u_h(x)] - <h, nu>` is convex and its gradient is the mass of the cells minus what
    they should have: a cell with too much sinks. Rounded operation by operation, so the same bits
    everywhere.

    Args:
        h: heights, [N], float32 or float64, contiguous; -inf stays.
        m: running mean of the gradient, [N], like `h`; zeros at the start.
        v: running mean of its square, [N], like `h`; zeros at the start.
        mass: measured mass of the cells, [N], like `h`: `cell_mass(index, N) / B`.
        nu: target weights, [N], like `h`, sum 1.
        step: number of this step, from 1, for the bias correction; 0 leaves it out, as AE-OT does.
        lr: how far a cell moves whose gradient keeps its sign, in the unit of the heights.
        betas: decay of m and v.
        eps: added to the root of v; must be small against typical gradients, about 1 / N.

    Raises:
        ShapeError: the shapes do not fit together.
        ArgumentError: a dtype, layout or constant that is not allowed.
        DeviceError: the tensors lie on different devices.

    Source: An et al., AE-OT, ICLR 2020; Kingma and Ba, Adam, ICLR 2015.

    >>> import numpy as np
    >>> h, m, v = np.zeros((3, 2))
    >>> heights_adam_step(h, m, v, np.array([0.9, 0.1]), np.array([0.5, 0.5]), 1)
    >>> h.round(6).tolist()  # the heavy cell sinks
    [-0.05, 0.05]
    """
    arrays = {"h": h, "m": m, "v": v, "mass": mass, "nu": nu}
    settings = operator.index(step), float(lr), float(betas[0]), float(betas[1]), float(eps)
    if not is_torch(h):
        check_writable("heights_adam_step", h=h, m=m, v=v)
        _heights_adam_step(as_numpy("heights_adam_step", **arrays), settings, NumpyArrays)
        return
    check_torch("heights_adam_step", **arrays)
    if needs_dispatcher(*arrays.values()) and registered():
        sys.modules["torch"].ops.otcuda.heights_adam_step.default(*arrays.values(), *settings)
    else:
        _heights_adam_step(tuple(arrays.values()), settings, TorchArrays)


def _check_heights_adam_step(arrays: Any, *cells: Any) -> None:
    named = dict(zip(("h", "m", "v", "mass", "nu"), cells, strict=True))
    check_shapes("heights_adam_step", **{name: (a, "N") for name, a in named.items()})
    check_floats("heights_adam_step", arrays, **named)


def _heights_adam_step(cells: Sequence[Any], settings: tuple, arrays: Any) -> None:
    """`cells` are h, m, v, mass, nu; `settings` step, lr, both betas, eps."""
    _check_heights_adam_step(arrays, *cells)
    respect_torch_threads()
    inputs = map(arrays.contiguous, cells[3:])
    numbers = (*settings, *cuda_stream(native, cells[0]))
    native.heights_adam_step(*map(arrays.native, (*cells[:3], *inputs)), *numbers)
    arrays.wrote(*cells[:3])


@registers
def _register_heights_adam_step(torch: Any, library: Any) -> None:
    def kernel(*arguments):
        _heights_adam_step(arguments[:5], arguments[5:], TorchArrays)

    def fake(*arguments):
        _check_heights_adam_step(TorchArrays, *arguments[:5])

    schema = (
        "heights_adam_step(Tensor(a!) h, Tensor(b!) m, Tensor(c!) v, Tensor mass, Tensor nu, "
        "int step, float lr, float beta1, float beta2, float eps) -> ()"
    )
    define(torch, library, schema, kernel, fake)


# --- heights_adam_solve -----------------------------------------------------------------------


@dataclasses.dataclass
class HeightsState:
    """Where `heights_adam_solve` stands: enough to go on from, bit for bit.

    Attributes:
        h: heights, [N].
        m: running mean of the gradient, [N].
        v: running mean of its square, [N].
        step: steps done; the samples of a step depend on its number. On a CUDA device it may be a
            tensor there, int64 [1]: then nothing waits for the device (docs/cuda.md).
    """

    h: Any
    m: Any
    v: Any
    step: Any = 0


def heights_adam_solve(
    y: Any,
    nu: Any = None,
    source: str = "normal",
    *,
    iterations: int,
    batch: int,
    lr: Any = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    bias_correction: bool = True,
    seed: int = 0,
    state: HeightsState | None = None,
    callback: Callable[[float], Any] | None = None,
) -> tuple[HeightsState, np.ndarray]:
    """Solve for the heights by stochastic Adam, every iteration in one native call.

    Each iteration draws `batch` fresh samples, finds their cells, counts, and makes one step. The
    result depends on the arguments alone, not on threads, level, or where a run was cut: going on
    from a state gives the bits of a run that was never stopped.

    Args:
        y: targets, [N, D], float32 or float64, finite.
        nu: target weights, [N], like `y`, sum 1; None is 1 / N each.
        source: "normal", "uniform" or "gaussian_cdf", as in `source_samples`.
        iterations: how many steps to make.
        batch: samples of a step.
        lr: learning rate in the unit of the heights, one number or one a step, [iterations].
        betas: decay of Adam's means.
        eps: Adam's epsilon.
        bias_correction: Adam's; AE-OT leaves it out.
        seed: of the samples; step t uses stream t.
        state: where to go on, changed in place; None starts from zero heights. With a tensor as its
            step the call waits for nothing, chi2 is a tensor of the device, y and nu are not looked
            at, and the call can be captured in a CUDA graph: each replay makes the next steps.
        callback: called with the progress in [0, 1] about every 10 ms; returning False stops.

    Returns:
        state: after the last whole step, also when the callback stopped the run.
        chi2: estimate before each step done, float64, unbiased: `sum_i (mass_i - nu_i)^2 / nu_i` of
            the heights that the step began with. NaN for a batch of one.

    Raises:
        ShapeError: the shapes do not fit together.
        ArgumentError: a dtype or number that is not allowed, y or nu that are not finite.
        KeyboardInterrupt: at once on Ctrl-C; `state` then holds a whole number of steps.

    Source: An et al., AE-OT, ICLR 2020, algorithm 1; chi2 as in docs/transport.md.

    >>> import numpy as np
    >>> y = np.array([[-1.0], [1.0]])
    >>> nu = np.array([0.3, 0.7])
    >>> state, chi2 = heights_adam_solve(y, nu, iterations=300, batch=1000, seed=1)
    >>> bool(abs(state.h[0] - state.h[1] + 1.0488) < 0.1)  # 2 Phi^-1(0.3)
    True
    """
    arrays, y, nu, state = _check_heights_adam_solve(y, nu, state)
    respect_torch_threads()
    rates = _learning_rates(lr, iterations)
    batch, counted_there = operator.index(batch), is_torch(state.step)
    steps = state.step if counted_there else np.array([state.step], np.int64)
    on_device = [arrays.contiguous(y), arrays.contiguous(nu), state.h, state.m, state.v]
    chi2: Any = np.empty(len(rates))
    tail: tuple[Any, ...] = (chi2,)
    if on_cuda(native, y):
        chi2 = arrays.empty((len(rates),), "float64", y)
        sizes = (arrays.dtype(y) == "float64", *y.shape, max(batch, 1))
        workspace = cuda_workspace(native, "heights_adam_solve", y, *sizes)
        tail = (arrays.native(chi2), arrays.native(workspace), *cuda_stream(native, y))
    try:
        native.heights_adam_solve(
            *map(arrays.native, on_device),
            arrays.native(steps) if counted_there else steps,
            rates,
            *tail,
            source=source,
            seed=operator.index(seed) % 2**64,
            batch=batch,
            bias_correction=bias_correction,
            beta1=float(betas[0]),
            beta2=float(betas[1]),
            eps=float(eps),
            callback=callback,
        )
    except Interrupted:
        pass
    finally:
        arrays.wrote(state.h, state.m, state.v, *([steps] if counted_there else []))
        if not counted_there:
            done, state.step = int(steps[0]) - state.step, int(steps[0])
    if counted_there:
        return state, chi2
    chi2 = chi2.cpu().numpy() if on_cuda(native, y) else chi2
    return state, chi2[:done]


def _check_heights_adam_solve(y: Any, nu: Any, state: HeightsState | None) -> tuple:
    """Kind of the arrays, and y, nu and state with what was left out filled in."""
    arrays = TorchArrays if is_torch(y) else NumpyArrays
    if arrays is TorchArrays:
        given = {"h": state.h, "m": state.m, "v": state.v} if state else {}
        check_torch("heights_adam_solve", y=y, nu=nu, **given)
    else:
        y, nu = as_numpy("heights_adam_solve", y=y, nu=nu)
    N = check_shapes("heights_adam_solve", y=(y, "N D"), nu=(nu, "N"))["N"]
    if N < 1:
        raise ArgumentError("heights_adam_solve: y holds no target, expected at least one")
    if nu is None:
        nu = arrays.full((N,), 1.0 / N, y)
    state = state or HeightsState(*(arrays.full((N,), 0.0, y) for _ in range(3)))
    cells = {"nu": nu, "h": state.h, "m": state.m, "v": state.v}
    check_shapes("heights_adam_solve", y=(y, "N D"), **{k: (a, "N") for k, a in cells.items()})
    check_floats("heights_adam_solve", arrays, y=y, **cells)
    if is_torch(state.step):
        _check_step_on_device(state.step, y)
    elif not (arrays.all_finite(y) and arrays.all_finite(nu) and float(nu.min()) >= 0):
        raise ArgumentError("heights_adam_solve: y and nu are finite numbers, nu not negative")
    return arrays, y, nu, state


def _check_step_on_device(step: Any, y: Any) -> None:
    if not on_cuda(native, y):
        raise ArgumentError(
            "heights_adam_solve: state.step is a tensor only for y on a CUDA device"
        )
    if str(step.dtype) != "torch.int64" or tuple(step.shape) != (1,):
        raise ArgumentError(
            f"heights_adam_solve: state.step is {step.dtype} {list(step.shape)}, expected int64 [1]"
        )


def _learning_rates(lr: Any, iterations: int) -> np.ndarray:
    if operator.index(iterations) < 0:
        raise ArgumentError(f"heights_adam_solve: iterations is {iterations}, expected 0 or more")
    rates = np.asarray(lr, np.float64)
    if rates.ndim == 0:
        rates = np.full(iterations, float(rates))
    if rates.shape != (iterations,) or not np.isfinite(rates).all():
        raise ArgumentError(
            f"heights_adam_solve: lr has shape {list(rates.shape)}, expected one finite number, "
            f"or one a step, [{iterations}]"
        )
    return np.ascontiguousarray(rates)
