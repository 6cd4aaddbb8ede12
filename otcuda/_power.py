# SPDX-License-Identifier: Apache-2.0
"""The ops that find cells, power_argmax and power_topk: sections of `_ops.py` in their own file."""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np

from otcuda import _screen
from otcuda._arrays import (
    NumpyArrays,
    TorchArrays,
    check_floats,
    check_out,
    cuda_stream,
    cuda_workspace,
    is_torch,
    like_first,
    needs_dispatcher,
    on_cuda,
    taken,
)
from otcuda._ops import cell_mass, define, native, registered, registers, respect_torch_threads
from otcuda.errors import ArgumentError, DeviceError, check_shapes

MOST_K = 64  # csrc/common/power_topk.h


def check_problem(op: str, arrays: Any, x: Any, y: Any, h: Any, weights: Any = None) -> None:
    """Shapes and dtypes of one problem, or of G in a row."""
    for name, array in {"x": x, "y": y, "h": h}.items():
        if array is None:
            raise ArgumentError(f"{op}: {name} is None, expected an array")
    group = "G " if len(x.shape) == 3 else ""
    check_shapes(
        op,
        x=(x, group + "B D"),
        y=(y, group + "N D"),
        h=(h, group + "N"),
        weights=(weights, group + "B"),
    )
    check_floats(op, arrays, x=x, y=y, h=h)
    if y.shape[-2] < 1:
        raise ArgumentError(f"{op}: y holds no target, expected at least one")


def written(arrays: Any, out: tuple[Any, Any], results: tuple[Any, Any]) -> tuple[Any, Any]:
    """Results copied into `out`, unless they are there already."""
    for to, result in zip(out, results, strict=True):
        if to is result:
            continue
        if arrays is NumpyArrays:
            to[...] = result
        else:
            to.copy_(result)
    return out


def no_gradient_into_out(op: str, *tensors: Any) -> None:
    """Raises ArgumentError where a gradient is asked for: what is written into cannot carry it."""
    torch = sys.modules["torch"]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors if is_torch(t)):
        raise ArgumentError(f"{op}: out= carries no gradient, but an argument requires one")


def gap_of(arrays: Any, values: Any, indices: Any) -> Any:
    """How far the best score lies above the second, from the top two, [..., 2]."""
    xp = sys.modules["torch"] if arrays is TorchArrays else np
    first = values[..., 0]
    second = xp.where(indices[..., 1] < 0, -xp.inf, values[..., 1])
    both = xp.isinf(first) & (first == second)  # inf - inf would be NaN
    return xp.where(both, 0.0, first) - xp.where(both, 0.0, second)


def mass_of(arrays: Any, index: Any, N: int, weights: Any) -> Any:
    """Mass of the cells, [N] or [G, N], with the bits of cell_mass for each group alone."""
    if len(index.shape) == 1:
        return cell_mass(index, N, weights)
    xp = sys.modules["torch"] if arrays is TorchArrays else np
    if weights is None or not len(index):
        ends = xp.arange(len(index), **({} if xp is np else {"device": index.device})) * N
        flat = xp.where(index < 0, -1, index + ends[:, None]).reshape(-1)
        weights = None if weights is None else weights.reshape(-1)
        return cell_mass(flat, max(1, len(index) * N), weights)[: len(index) * N].reshape(-1, N)
    return xp.stack([cell_mass(i, N, w) for i, w in zip(index, weights, strict=True)])


# --- power_argmax -----------------------------------------------------------------------------


def power_argmax(
    x: Any,
    y: Any,
    h: Any,
    *,
    return_gap: bool = False,
    return_mass: bool = False,
    weights: Any = None,
    out: tuple[Any, Any] | None = None,
) -> tuple[Any, ...]:
    """Cell of the power diagram in which each sample lies: `max_i <x_b, y_i> + h_i`.

    Exact: the score is one chain of fused multiply-adds over d, then `+ h_i`, the same bits on
    every CPU level, device and number of threads; nothing of size B x N is stored. Ties go to the
    lowest index. A NaN score never wins; where all are NaN, value is NaN and index -1 (torch.max
    instead returns the first NaN). Heights of -inf are dead cells.

    Args:
        x: samples, [B, D], float32 or float64; float16 and bfloat16 are widened to float32. With
            [G, B, D], G problems in one call: every shape here then has G in front.
        y: targets, [N, D], N >= 1, dtype and device of `x`.
        h: heights, [N], in the unit of `<x, y>`; docs/transport.md turns dual potentials into them.
        return_gap: also how far each sample lies from the next cell, in the unit of the scores.
        return_mass: also how many samples, or how much of their weight, lies in each cell.
        weights: weights of the samples, [B], for return_mass; None counts.
        out: pair (value, index) to write into, of the shapes and dtypes below.

    Returns:
        value: score of the winner, the Brenier potential u_h(x_b), [B], in the dtype computed in;
            differentiable in x, y, h.
        index: the winner, [B], int64.
        gap: with return_gap, value minus the second best score, rounded once, [B]: 0 at a tie
            (of infinities too), inf where no other score is above -inf (N = 1), NaN where index is
            -1. Differentiable.
        mass: with return_mass, [N]: `cell_mass(index, N, weights)`.

    Raises:
        ShapeError: the shapes do not fit together.
        ArgumentError: no target, a dtype that is not allowed, weights without return_mass, or an
            `out` that cannot be written to.
        DeviceError: the tensors lie on different devices.

    Source: An et al., AE-OT: a new generative model based on extended semi-discrete optimal
    transport, ICLR 2020.

    >>> import numpy as np
    >>> y = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> x = np.array([[0.5, 0.0], [-2.0, 1.0]])
    >>> value, index = power_argmax(x, y, np.zeros(2))
    >>> value.tolist(), index.tolist()
    ([0.5, 2.0], [0, 1])
    >>> value, index, gap, mass = power_argmax(x, y, np.zeros(2), return_gap=True, return_mass=True)
    >>> gap.tolist(), mass.tolist()
    ([1.0, 4.0], [1, 1])
    """
    op, kind = "power_argmax", x
    if weights is not None and not return_mass:
        raise ArgumentError(f"{op}: weights are for return_mass=True")
    arrays, (x, y, h, weights) = taken(op, x=x, y=y, h=h, weights=weights)
    check_problem(op, arrays, x, y, h, weights)
    if out is not None:
        check_out(op, arrays, out, tuple(x.shape[:-1]), arrays.dtype(x), [x, y, h])
        if arrays is TorchArrays:
            no_gradient_into_out(op, x, y, h)
    extras = []
    if return_gap:
        value, index, gap = _best_and_gap(x, y, h, arrays, out)
        extras.append(gap)
    else:
        value, index = _best(x, y, h, arrays, out)
    if return_mass:
        extras.append(mass_of(arrays, index, y.shape[-2], weights))
    if out is not None:
        value, index = written(arrays, out, (value, index))
        return value, index, *(like_first(kind, extra) for extra in extras)
    return like_first(kind, value, index, *extras)


def _best(x: Any, y: Any, h: Any, arrays: Any, out: Any = None) -> tuple[Any, Any]:
    if arrays is TorchArrays and needs_dispatcher(x, y, h) and registered():
        return sys.modules["torch"].ops.otcuda.power_argmax.default(x, y, h)
    return _power_argmax(x, y, h, arrays, out)


def _best_and_gap(x: Any, y: Any, h: Any, arrays: Any, out: Any) -> tuple[Any, Any, Any]:
    if arrays is TorchArrays and needs_dispatcher(x, y, h):  # the second best hears of a gradient
        values, indices = _top(x, y, h, 2, arrays)
        value, index = (arrays.dense(array[..., 0]) for array in (values, indices))
        return value, index, gap_of(arrays, values, indices)
    given = [arrays.contiguous(array) for array in (x, y, h)]
    if on_cuda(native, x):
        return _lists_on_cuda(*given, None)
    on_host("return_gap", arrays, x)
    respect_torch_threads()
    value, index = outputs(arrays, x, tuple(x.shape[:-1]), out)
    gap = arrays.empty(tuple(x.shape[:-1]), arrays.dtype(x), x)
    native.power_argmax_gap(*problems(arrays, x, *given, value, index, gap))
    if out is not None:
        arrays.wrote(value, index)
    return value, index, gap


def on_host(what: str, arrays: Any, x: Any) -> None:
    """Raises DeviceError where x lies elsewhere."""
    if arrays is TorchArrays and x.device.type != "cpu":
        raise DeviceError(
            f"{what}: x lies on {x.device}; more than the best is found on a CPU, or on a CUDA "
            "device by a build that has its kernels"
        )


def problems(arrays: Any, x: Any, *given: Any) -> list[Any]:
    """What crosses into C++, one problem with G = 1 in front."""
    whole = given if len(x.shape) == 3 else [array[None] for array in given]
    return [arrays.native(array) for array in whole]


def _power_argmax(x: Any, y: Any, h: Any, arrays: Any, out: Any = None) -> tuple[Any, Any]:
    check_problem("power_argmax", arrays, x, y, h)
    respect_torch_threads()
    x, y, h = arrays.contiguous(x), arrays.contiguous(y), arrays.contiguous(h)
    if on_cuda(native, x):
        return _power_argmax_on_cuda(x, y, h)
    value, index = outputs(arrays, x, tuple(x.shape[:-1]), out)
    native.power_argmax(*map(arrays.native, (x, y, h, value, index)))
    if out is not None:
        arrays.wrote(value, index)
    return value, index


def outputs(arrays: Any, x: Any, shape: tuple[int, ...], out: Any) -> tuple[Any, Any]:
    """Value and index to be written: those of `out` where they are contiguous, else new ones."""
    value, index = out if out is not None else (None, None)
    if value is None or not arrays.is_contiguous(value):
        value = arrays.empty(shape, arrays.dtype(x), x)
    if index is None or not arrays.is_contiguous(index):
        index = arrays.empty(shape, "int64", x)
    return value, index


def _power_argmax_on_cuda(x: Any, y: Any, h: Any) -> tuple[Any, Any]:
    """Contiguous tensors; group after group on the caller's stream."""
    torch = sys.modules["torch"]
    if x.dim() == 3:
        found = [_power_argmax_on_cuda(*group) for group in zip(x, y, h, strict=True)]
        if not found:
            return x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2], dtype=torch.int64)
        return torch.stack([value for value, _ in found]), torch.stack([i for _, i in found])
    if kernel := _screen.screens(native, x, y):
        return _screen.run(native, kernel, x, y, h)
    value, index = outputs(TorchArrays, x, (x.shape[0],), None)
    sizes = (x.dtype == torch.float64, x.shape[0], *y.shape)
    workspace = cuda_workspace(native, "power_argmax", x, *sizes)
    given = map(TorchArrays.native, (x, y, h, value, index, workspace))
    native.power_argmax(*given, *cuda_stream(native, x))
    return value, index


def linear_backward(torch: Any, saved: tuple[Any, Any, Any], grad: Any) -> tuple[Any, Any, Any]:
    """Gradients in x, y, h of the scores of some targets: `saved` is x, y and index [..., k].

    Danskin: near x_b the order of the targets is constant, so each value is linear in each input.
    """
    x, y, index = saved
    won = index >= 0  # a place without a target hands on no gradient
    i, g = index.clamp(min=0), torch.where(won, grad, 0)
    N, D = y.shape[-2:]
    if x.dim() == 3:  # groups: their targets stand one behind the other
        i = i + torch.arange(x.shape[0], device=x.device)[:, None, None] * N
    rows, i, g = y.reshape(-1, D), i.reshape(-1, i.shape[-1]), g.reshape(-1, g.shape[-1])
    samples, won = x.reshape(-1, D), won.reshape(i.shape)
    dx, dy = torch.zeros_like(samples), torch.zeros_like(rows)
    dh = torch.zeros_like(rows[:, 0])
    for k in range(i.shape[1]):  # one place at a time: nothing of size B k D is stored
        at, share, has = i[:, k], g[:, k, None], won[:, k, None]
        dx = dx + torch.where(has, rows[at] * share, 0)
        dy = dy.index_add(0, at, torch.where(has, samples * share, 0))
        dh = dh.index_add(0, at, g[:, k])
    return dx.reshape(x.shape), dy.reshape(y.shape), dh.reshape(y.shape[:-1])


@registers
def _register_power_argmax(torch: Any, library: Any) -> None:

    def kernel(x, y, h):
        return _power_argmax(x, y, h, TorchArrays)

    def fake(x, y, h):
        check_problem("power_argmax", TorchArrays, x, y, h)
        return x.new_empty(x.shape[:-1]), x.new_empty(x.shape[:-1], dtype=torch.int64)

    def setup(ctx, inputs, output):
        x, y, _ = inputs
        ctx.save_for_backward(x, y, output[1])
        ctx.mark_non_differentiable(output[1])

    def backward(ctx, grad, _):
        x, y, index = ctx.saved_tensors
        return linear_backward(torch, (x, y, index[..., None]), grad[..., None])

    schema = "power_argmax(Tensor x, Tensor y, Tensor h) -> (Tensor value, Tensor index)"
    define(torch, library, schema, kernel, fake)
    torch.library.register_autograd(
        "otcuda::power_argmax", backward, setup_context=setup, lib=library
    )


# --- power_topk -------------------------------------------------------------------------------


def power_topk(
    x: Any, y: Any, h: Any, k: int, *, out: tuple[Any, Any] | None = None
) -> tuple[Any, Any]:
    """The k best cells of each sample: the largest `<x_b, y_i> + h_i`, in order.

    Exact: scores have the bits of `power_argmax`, whose result is that of k = 1. Largest first, of
    equal scores the lower index first. NaN scores are in no list; where fewer than k scores are
    numbers (also because N < k), the places left over hold value NaN and index -1. Nothing of size
    B x N is stored.

    Args:
        x: samples, [B, D], float32 or float64; float16 and bfloat16 are widened to float32. With
            [G, B, D], G problems in one call: every shape here then has G in front.
        y: targets, [N, D], N >= 1, dtype and device of `x`.
        h: heights, [N].
        k: how many, 1 to 64.
        out: pair (value, index) to write into, of the shapes and dtypes below.

    Returns:
        value: scores, [B, k], in the dtype computed in; differentiable in x, y, h.
        index: the targets that have them, [B, k], int64.

    Raises:
        ShapeError: the shapes do not fit together.
        ArgumentError: no target, a k or dtype that is not allowed, or an `out` that cannot be
            written to.
        DeviceError: the tensors lie on different devices.

    >>> import numpy as np
    >>> y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> value, index = power_topk(np.array([[0.5, 0.25]]), y, np.zeros(3), 2)
    >>> value.tolist(), index.tolist()
    ([[0.5, 0.25]], [[0, 2]])
    """
    op, kind, k = "power_topk", x, operator.index(k)
    arrays, (x, y, h) = taken(op, x=x, y=y, h=h)
    check_topk(arrays, x, y, h, k)
    if out is None:
        return like_first(kind, *_top(x, y, h, k, arrays))
    check_out(op, arrays, out, (*x.shape[:-1], k), arrays.dtype(x), [x, y, h])
    if arrays is TorchArrays:
        no_gradient_into_out(op, x, y, h)
    return written(arrays, out, _top(x, y, h, k, arrays, out))


def check_k(op: str, k: int) -> None:
    """Raises ArgumentError for a k that is not allowed."""
    if not 1 <= k <= MOST_K:
        raise ArgumentError(f"{op}: k is {k}, expected 1 to {MOST_K}")


def check_topk(arrays: Any, x: Any, y: Any, h: Any, k: int) -> None:
    """Shapes, dtypes and k of power_topk."""
    check_problem("power_topk", arrays, x, y, h)
    check_k("power_topk", k)


def _top(x: Any, y: Any, h: Any, k: int, arrays: Any, out: Any = None) -> tuple[Any, Any]:
    if arrays is TorchArrays and needs_dispatcher(x, y, h) and registered():
        return sys.modules["torch"].ops.otcuda.power_topk.default(x, y, h, k)
    return _power_topk(x, y, h, k, arrays, out)


def _power_topk(x: Any, y: Any, h: Any, k: int, arrays: Any, out: Any = None) -> tuple[Any, Any]:
    check_topk(arrays, x, y, h, k)
    if k == 1 and out is None:
        value, index = _power_argmax(x, y, h, arrays)
        return value[..., None], index[..., None]
    x, y, h = arrays.contiguous(x), arrays.contiguous(y), arrays.contiguous(h)
    if on_cuda(native, x):
        return _lists_on_cuda(x, y, h, k)
    on_host("power_topk", arrays, x)
    respect_torch_threads()
    value, index = outputs(arrays, x, (*x.shape[:-1], k), out)
    native.power_topk(*problems(arrays, x, x, y, h, value, index))
    if out is not None:
        arrays.wrote(value, index)
    return value, index


def _lists_on_cuda(x: Any, y: Any, h: Any, k: int | None) -> tuple[Any, ...]:
    """Value and index of power_topk, or for None value, index and gap; as _power_argmax_on_cuda."""
    torch, places = sys.modules["torch"], () if k is None else (k,)
    if x.dim() == 3:
        found = [_lists_on_cuda(*group, k) for group in zip(x, y, h, strict=True)]
        if found:
            return tuple(map(torch.stack, zip(*found, strict=True)))
        shape = (*x.shape[:2], *places)
        empty = x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)
        return empty if places else (*empty, x.new_empty(shape))
    value, index = outputs(TorchArrays, x, (len(x), *places), None)
    results = (value, index) if places else (value, index, torch.empty_like(value))
    sizes = (x.dtype == torch.float64, len(x), *y.shape)
    workspace = cuda_workspace(native, "power_topk", x, *sizes)
    run = native.power_topk if places else native.power_argmax_gap
    run(*map(TorchArrays.native, (x, y, h, *results, workspace)), *cuda_stream(native, x))
    return results


@registers
def _register_power_topk(torch: Any, library: Any) -> None:

    def kernel(x, y, h, k):
        return _power_topk(x, y, h, k, TorchArrays)

    def fake(x, y, h, k):
        check_topk(TorchArrays, x, y, h, k)
        shape = (*x.shape[:-1], k)
        return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)

    def setup(ctx, inputs, output):
        x, y, _, _ = inputs
        ctx.save_for_backward(x, y, output[1])
        ctx.mark_non_differentiable(output[1])

    def backward(ctx, grad, _):
        return *linear_backward(torch, ctx.saved_tensors, grad), None

    schema = "power_topk(Tensor x, Tensor y, Tensor h, int k) -> (Tensor value, Tensor index)"
    define(torch, library, schema, kernel, fake)
    torch.library.register_autograd(
        "otcuda::power_topk", backward, setup_context=setup, lib=library
    )
