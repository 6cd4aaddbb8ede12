# SPDX-License-Identifier: Apache-2.0
"""The context model in integers: from a trained `ContextModel` to int8 weights, tables, and bytes.

What the integers mean, and why every machine gets the same ones: csrc/common/context_net.h. NumPy
only; torch is imported where a float model is turned into integers.

Arrays of a model of M channels, width H, groups of channels `edges[g]` .. `edges[g + 1]`; in a
weights file each name begins with `context.`:

    edges                               int32   [groups + 1], from 0 to M
    near.weight, far.weight             int8    [H, M + C edges[1] + 2, 3, 3], C = 1 .. 6
    deep.weight                         int8    [H, H, 3, 3]
    mix.<g>.weight                      int8    [H, H + edges[g], 1, 1]
    out.<g>.weight                      int8    [2 (edges[g + 1] - edges[g]), H, 1, 1]
    near, deep, mix.<g>, out.<g> .bias  int32   [outputs]
    near, deep, mix.<g>, out.<g> .shift uint8   [outputs]
    offset                              int16   [5, M], in units of 1/96 octave
    tables                              uint16  [64, 32], of 0, 1, -1, 2, -2, ... -15, escape
    mean_bits                           int32   [1], 4 to 6; 4 where there is none
    centroids                           int16   [64], 0 to 2^(mean_bits - 1); 0 where there are none
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otcuda import _ops
from otcuda.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from otcuda.codec.networks import ContextModel

PREFIX = "context."
SCALES = 64  # scale indices: log2 of the Laplace scale is index / 6 - 5
SCALE_STEPS = 6  # indices an octave
SCALE_LOWEST = -5
RADIUS = 15  # largest symbol a table may hold
PRECISION = 16  # of the tables made here
VALUE_BITS = 4  # what the network sees, and scales, have so many bits behind the point
MEAN_LIMIT = 8191  # of means, in their unit
STEP_LOWEST = 3  # log2 D = STEP_LOWEST + k / STEP_GRID
STEP_GRID = 32
WEIGHT_LIMIT = 127
MOST_SHIFT = 24
SLACK = 1.006  # what finer activations may cost before training
BIT_COST = 0.15  # of a bit, in squares of the step: what the auto-encoder is trained for


def log2_step(k: int) -> float:
    """log2 of the quantiser step D that the byte k of a header stands for."""
    return STEP_LOWEST + k / STEP_GRID


@dataclass(frozen=True)
class Choice:
    """Symbols of one picture and what the model says of them; arrays are [M, h, w].

    Attributes:
        symbols: int16.
        values: what the symbols stand for, int16: latents in units of the step / 2^mean_bits.
        scale_index: which of the 64 tables codes the symbol, uint8.
        bits: length of the code of all symbols; the payload is at most a byte longer.
    """

    symbols: np.ndarray
    values: np.ndarray
    scale_index: np.ndarray
    bits: float


class IntegerContext:
    """An integer context model: symbols from latents, bytes from symbols, and back.

    The bytes depend on the arrays alone: not on machine, instruction set or number of threads.

    Args:
        arrays: see the head of this module, without the prefix.

    Raises:
        ArgumentError: an array is missing, of another dtype, or holds numbers that are not allowed
            (sums that could pass int32, tables that do not add up).
        ShapeError: arrays that do not fit together.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self._net = _ops.load_context_net({**_plain_reconstruction(), **self.arrays})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], prefix: str = PREFIX) -> IntegerContext:
        """The model among the tensors of a weights file (NumPy or torch)."""
        named = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        return cls({name: np.asarray(array) for name, array in named.items()})

    def tensors(self, prefix: str = PREFIX) -> dict[str, np.ndarray]:
        """The arrays under the names of a weights file, contiguous, as safetensors wants them."""
        return {prefix + name: np.ascontiguousarray(a) for name, a in self.arrays.items()}

    @property
    def channels(self) -> int:
        """Channels M of the latents."""
        return self._net.channels

    @property
    def unit(self) -> float:
        """Unit of the values, in steps: 1/16 to 1/64."""
        return 2.0 ** -int(self.arrays.get("mean_bits", [VALUE_BITS])[0])

    def quantise(
        self,
        u: np.ndarray,
        k: int,
        multiplier: float | None = None,
        off: np.ndarray | None = None,
        callback: Callable[[float], bool | None] | None = None,
    ) -> Choice:
        """Symbols of latents, each chosen when its mean is known.

        The residual is r = u - mean. Without multiplier a symbol is r rounded: the heights
        "nearest". With one it is, of {r rounded, one towards zero, 0}, the s of least
        (r - s)^2 + multiplier bits(s): the heights "conditional" of otcuda/codec/quantiser.py.

        Args:
            u: latents in units of the step, y / D, [M, h, w], float32, finite.
            k: byte of the step, D = 2^(3 + k / 32), 0 to 255.
            multiplier: c in lambda = c D^2, a bit.
            off: channels that are not coded (symbols and values 0), [M], bool.
            callback: takes the progress in [0, 1]; False stops with `Interrupted`.
        """
        return Choice(*_ops.context_quantise(self._net, u, k, off, multiplier, callback))

    def measure(
        self,
        symbols: np.ndarray,
        k: int,
        off: np.ndarray | None = None,
        callback: Callable[[float], bool | None] | None = None,
    ) -> Choice:
        """What given symbols cost and mean, without writing bytes.

        Args:
            symbols: [M, h, w], integers of magnitude at most 1535 (767, 383) where means have 4
                (5, 6) bits behind the point.
            k: as in `quantise`.
            off: as in `quantise`.
            callback: as in `quantise`.
        """
        values, scales, bits = _ops.context_measure(self._net, symbols, k, off, callback)
        return Choice(np.asarray(symbols, np.int16), values, scales, bits)

    def encode(
        self,
        symbols: np.ndarray,
        k: int,
        off: np.ndarray | None = None,
        callback: Callable[[float], bool | None] | None = None,
    ) -> bytes:
        """The payload of symbols: headerless, without trailing zero bytes."""
        return _ops.context_encode(self._net, symbols, k, off, callback)

    def decode(
        self,
        payload: bytes,
        k: int,
        grid: tuple[int, int],
        off: np.ndarray | None = None,
        callback: Callable[[float], bool | None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Symbols and values, int16 [M, h, w], of a payload.

        Args:
            payload: what `encode` wrote.
            k: as in `quantise`; a wrong one gives other symbols or an error.
            grid: height and width of the latents.
            off: as in `quantise`.
            callback: as in `quantise`.

        Raises:
            CorruptDataError: bytes that no encoder writes for this grid, step and model. Damage
                that reads as other symbols is not seen: a payload has no check of its own.
        """
        return _ops.context_decode(self._net, payload, k, grid, off, callback)


def _plain_reconstruction() -> dict[str, np.ndarray]:
    """As models say it that say nothing: sixteenths, and the middle of each interval."""
    bits, centroids = np.array([VALUE_BITS], np.int32), np.zeros(SCALES, np.int16)
    return {"mean_bits": bits, "centroids": centroids}


def symbol_limit(mean_bits: int) -> int:
    """The largest magnitude of a symbol: values are int16, and means take a quarter of them."""
    return (1536 >> (mean_bits - VALUE_BITS)) - 1


# --- from float to integers -----------------------------------------------------------------------


@dataclass(frozen=True)
class Exponents:
    """Activations are integers in units of 2^-exponent, one exponent a layer.

    Attributes:
        first: of the first layer, near + far.
        deep: of the second.
        mix: of the 1 x 1 layer of each channel group.
        means: of the means; see `mean_bits`.
    """

    first: int
    deep: int
    mix: tuple[int, ...]
    means: int = VALUE_BITS

    def finer(self, layer: int) -> Exponents:
        """With half the unit in one layer: 0 is the first, 1 the deep one, then the mixes."""
        layers = [self.first, self.deep, *self.mix]
        layers[layer] += 1
        return Exponents(layers[0], layers[1], tuple(layers[2:]), self.means)


def mean_bits(log2_step: float) -> int:
    """Most bits behind the point, 4 to 6, with which means reach those of blocks nearly white.

    Args:
        log2_step: of the finest step that is coded.
    """
    largest = 120 * 16 * 3**0.5 / 2**log2_step
    return max(VALUE_BITS, min(6, math.floor(math.log2(MEAN_LIMIT / largest))))


def quantise_network(
    model: ContextModel, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, np.ndarray]:
    """Integer arrays of a trained model, with the tables of Laplace laws.

    Args:
        model: the float model.
        batches: latents [B, M, h, w] in orthonormal units and log2 of the step [B], on which the
            ranges of the activations are measured.
    """
    return integer_arrays(model, calibrate(model, batches))


def calibrate(model: ContextModel, batches: Iterable[tuple[Tensor, Tensor]]) -> Exponents:
    """Exponents of the activations for the integers.

    Those of least squared error, clipping included, are too coarse: large activations are few, and
    clipped they cost less than their square says. So units are halved, in the order of what the
    latents then cost in error and bits, while that stays within `SLACK` of the least: training
    learns not to clip, but not to be finer.

    Args:
        model: the float model.
        batches: latents [B, M, h, w] in orthonormal units and log2 of the step [B]; the finest step
            decides how fine the means are.
    """
    batches = list(batches)
    exponents = _of_least_error(model, batches)
    least = _integer_cost(model, exponents, batches)
    coarse = set(range(2 + len(exponents.mix)))
    while coarse:
        costs = {n: _integer_cost(model, exponents.finer(n), batches) for n in coarse}
        layer = min(costs, key=costs.__getitem__)
        if costs[layer] > least * SLACK:
            break
        coarse.remove(layer)
        exponents, least = exponents.finer(layer), min(least, costs[layer])
    return exponents


def _integer_cost(
    model: ContextModel, exponents: Exponents, batches: list[tuple[Tensor, Tensor]]
) -> float:
    """What the auto-encoder was trained for, of the latents alone: see `rate_distortion` there.

    Infinite where the weights do not fit the exponents.
    """
    try:
        integers = IntegerContext(integer_arrays(model, exponents))
    except ArgumentError:
        return math.inf
    cost = 0.0
    for latents, level in batches:
        for y, log2 in zip(latents.cpu().numpy(), level.tolist(), strict=True):
            k = round((log2 - STEP_LOWEST) * STEP_GRID)
            step = 2.0 ** log2_step(k)
            u = (y / step).astype(np.float32)
            choice = integers.quantise(u, k)
            error = np.square(choice.values * integers.unit - u, dtype=np.float64).sum()
            cost += step**0.8 * (error + BIT_COST * choice.bits)
    return cost


def _of_least_error(model: ContextModel, batches: list[tuple[Tensor, Tensor]]) -> Exponents:
    """Exponents with the least squared error of the activations, clipping included."""
    import torch

    from otcuda.codec.networks import quantise_hard

    candidates = np.arange(-3, 13)
    groups = len(model.edges) - 1
    errors = {layer: np.zeros(len(candidates)) for layer in range(2 + groups)}

    def watch(layer: int):
        def hook(_module, inputs):
            x = inputs[0].detach().double().flatten()
            for n, exponent in enumerate(candidates):
                unit = 2.0 ** -int(exponent)
                near = torch.round(x / unit).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) * unit
                errors[layer][n] += float((near - x).square().sum())

        return hook

    # A layer's activations are the inputs of the next; the first group's mix sees `deep` alone.
    watched, finest = [model.heard, model.mix[0], *model.out], 10.0
    hooks = [m.register_forward_pre_hook(watch(n)) for n, m in enumerate(watched)]
    try:
        with torch.no_grad():
            for latents, level in batches:
                model(latents, level, quantise_hard)
                finest = min(finest, float(level.min()))
    finally:
        for hook in hooks:
            hook.remove()
    best = [int(candidates[int(np.argmin(errors[layer]))]) for layer in range(2 + groups)]
    return Exponents(best[0], best[1], tuple(best[2:]), mean_bits(finest))


def channel_exponents(weight: np.ndarray, bias: np.ndarray, output: int | np.ndarray) -> np.ndarray:
    """Exponent e of each output channel: weights become integers in units of 2^-e.

    The largest e that keeps the weights within int8, the bias within 2^28 and the shift e - output
    within 0 to 24.

    Args:
        weight: [outputs, ...], for inputs that are integers.
        bias: [outputs].
        output: exponent of the layer's activations, one or one a channel.

    Raises:
        ArgumentError: weights so large that the shift would be negative.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float64)
    room = np.minimum(
        np.log2(WEIGHT_LIMIT / np.maximum(largest, 1e-30)),
        28 - np.log2(np.maximum(np.abs(bias), 1e-30)),
    )
    exponents = np.minimum(np.floor(room).astype(np.int64), output + MOST_SHIFT)
    if (exponents < output).any():
        raise ArgumentError(
            f"weights of size {largest.max():.3g} do not fit: activations in units of "
            f"2^-{np.max(output)}"
        )
    return exponents


def integer_layer(
    weight: np.ndarray, bias: np.ndarray, output: int | np.ndarray
) -> dict[str, np.ndarray]:
    """Integer weight, bias and shift of a layer whose inputs are integers."""
    exponents = channel_exponents(weight, bias, output)
    unit = 2.0 ** exponents.astype(np.float64)
    scaled = weight.astype(np.float64) * unit.reshape(-1, *[1] * (weight.ndim - 1))
    return {
        "weight": np.rint(scaled).astype(np.int8),
        "bias": np.rint(bias.astype(np.float64) * unit).astype(np.int32),
        "shift": (exponents - output).astype(np.uint8),
    }


def folded_layers(
    parameters: Mapping[str, Any], edges: tuple[int, ...], exponents: Exponents
) -> dict[str, tuple[Any, Any, Any]]:
    """Weights for integer inputs, biases and output exponents, by layer; `near` holds both kernels.

    Written for NumPy arrays and torch tensors alike: the quantisation-aware training folds in the
    same way, with gradients.

    Args:
        parameters: state of a `ContextModel`.
        edges: of its groups.
        exponents: of its activations.
    """
    H, unit = len(parameters["deep.bias"]), 2.0**-VALUE_BITS

    def stacked(parts: list[Any]) -> Any:
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts, 1)
        import torch

        return torch.cat(parts, 1)

    near = stacked([parameters["near.weight"], parameters["far.weight"]]) * unit
    layers = {
        "near": (near, parameters["near.bias"], exponents.first),
        "deep": (
            parameters["deep.weight"] * 2.0**-exponents.first,
            parameters["deep.bias"],
            exponents.deep,
        ),
    }
    for g, (a, b) in enumerate(itertools.pairwise(edges)):
        mix, out = parameters[f"mix.{g}.weight"], parameters[f"out.{g}.weight"]
        mix = stacked([mix[:, :H] * 2.0**-exponents.deep, mix[:, H:] * unit])
        layers[f"mix.{g}"] = (mix, parameters[f"mix.{g}.bias"], exponents.mix[g])
        # The second half is log2 of the scale: counted in indices from here on.
        means = np.arange(2 * (b - a)) < b - a
        rows = np.where(means, 1.0, float(SCALE_STEPS))
        if not isinstance(out, np.ndarray):
            rows = out.new_tensor(rows)
        out = out * (rows * 2.0 ** -exponents.mix[g])[:, None, None, None]
        points = np.where(means, exponents.means, VALUE_BITS)
        layers[f"out.{g}"] = (out, parameters[f"out.{g}.bias"] * rows, points)
    return layers


def integer_arrays(model: ContextModel, exponents: Exponents) -> dict[str, np.ndarray]:
    """Arrays of a float model for given exponents, with the tables of Laplace laws."""
    parameters = {name: p.detach().cpu().numpy() for name, p in model.state_dict().items()}
    arrays = {"edges": np.array(model.edges, np.int32)}
    for name, layer in folded_layers(parameters, model.edges, exponents).items():
        arrays |= {f"{name}.{part}": a for part, a in integer_layer(*layer).items()}
    both = arrays["near.weight"]
    arrays["near.weight"], arrays["far.weight"] = np.split(both, 2, axis=1)
    arrays["offset"] = integer_offset(parameters["phase_scale"], parameters["channel_scale"])
    arrays["tables"] = laplace_tables().copy()
    arrays["mean_bits"] = np.array([exponents.means], np.int32)
    arrays["centroids"] = np.zeros(SCALES, np.int16)
    if model.centroids:
        arrays["centroids"] = integer_centroids(exponents.means)
    return arrays


def integer_centroids(mean_bits: int) -> np.ndarray:
    """[64]: how far the mean of an interval lies below its middle, by the law of each index.

    See `otcuda.codec.networks.centroid_shift`.
    """
    scale = 2.0 ** (np.arange(SCALES) / SCALE_STEPS + SCALE_LOWEST)
    return np.rint((0.5 - scale + 1 / np.expm1(1 / scale)) * 2**mean_bits).astype(np.int16)


def integer_offset(phase_scale: np.ndarray, channel_scale: np.ndarray) -> np.ndarray:
    """[5, M]: the scale at D = 8 where the network says 0, in sixteenths of an index."""
    octaves = phase_scale + channel_scale - SCALE_LOWEST - STEP_LOWEST
    return np.rint(np.clip(octaves * SCALE_STEPS * 2**VALUE_BITS, -32767, 32767)).astype(np.int16)


def float_parameters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """State of a float `ContextModel` that computes what the integers do, up to their rounding.

    The inverse of `integer_arrays`, so that weights can be trained on. Integers do not tell the
    exponents of the activations; leaky layers are homogeneous, so that any will do.
    """
    unit = 2.0**VALUE_BITS  # activations are taken to be integers in this unit, as inputs are
    edges = [int(e) for e in arrays["edges"]]
    mean_bits = int(arrays.get("mean_bits", [VALUE_BITS])[0])
    out: dict[str, np.ndarray] = {}

    def unfold(
        name: str, parts: tuple[str, ...], rows: Any = 1.0, output: Any = VALUE_BITS
    ) -> None:
        exponents = arrays[f"{name}.shift"].astype(np.float64) + output
        scale = 2.0**-exponents / rows
        for part in parts:
            weight = arrays[f"{part}.weight"] * (scale * unit)[:, None, None, None]
            out[f"{part}.weight"] = weight.astype(np.float32)
        out[f"{name}.bias"] = (arrays[f"{name}.bias"] * scale).astype(np.float32)

    unfold("near", ("near", "far"))
    unfold("deep", ("deep",))
    for g, (a, b) in enumerate(itertools.pairwise(edges)):
        unfold(f"mix.{g}", (f"mix.{g}",))
        means = np.arange(2 * (b - a)) < b - a
        rows = np.where(means, 1.0, float(SCALE_STEPS))
        unfold(f"out.{g}", (f"out.{g}",), rows, np.where(means, mean_bits, VALUE_BITS))
    octaves = arrays["offset"] / (SCALE_STEPS * unit) + SCALE_LOWEST + STEP_LOWEST
    channel = octaves.mean(0)
    out["channel_scale"] = channel.astype(np.float32)
    out["phase_scale"] = (octaves - channel).astype(np.float32)
    return out


# --- tables ---------------------------------------------------------------------------------------


def laplace_masses() -> np.ndarray:
    """Masses of the magnitudes 0 .. 15 and of all above, [64, 17], of the law of each index."""
    scale = 2.0 ** (np.arange(SCALES) / SCALE_STEPS + SCALE_LOWEST)[:, None]
    tail = np.exp(-(np.arange(1, RADIUS + 2) - 0.5) / scale)  # P(|x| > m - 1/2), m = 1 .. 16
    return np.concatenate([1 - tail[:, :1], tail[:, :-1] - tail[:, 1:], tail[:, -1:]], 1)


@functools.cache
def laplace_tables() -> np.ndarray:
    """Tables of the Laplace laws, for a model whose symbols nobody has counted yet."""
    return tables_from_counts(np.zeros((SCALES, RADIUS + 2)))


def count_symbols(symbols: np.ndarray, scale_index: np.ndarray) -> np.ndarray:
    """How often each magnitude 0 .. 15, and any above, met each scale index: [64, 17], int64."""
    magnitude = np.minimum(np.abs(symbols.astype(np.int64)), RADIUS + 1)
    flat = scale_index.astype(np.int64) * (RADIUS + 2) + magnitude
    return np.bincount(flat.ravel(), minlength=SCALES * (RADIUS + 2)).reshape(SCALES, RADIUS + 2)


def tables_from_counts(counts: np.ndarray, trust: float = 4.0) -> np.ndarray:
    """Frequencies [64, 32] of the tables for symbols counted by `count_symbols`.

    A table is the Laplace law of its index times how much more often each magnitude was seen than
    that law says; the ratio is taken over the neighbouring indices too, and drawn to 1 where little
    was seen. Both signs get the same.

    Args:
        counts: [64, 17].
        trust: pseudo-counts of the Laplace law, in symbols of each magnitude.
    """
    law = laplace_masses()
    expected = counts.sum(1, keepdims=True) * law
    kernel = np.array([1.0, 3.0, 4.0, 3.0, 1.0])
    blurred = [
        np.apply_along_axis(lambda column: np.convolve(column, kernel / 4, "same"), 0, rows)
        for rows in (np.asarray(counts, np.float64), expected)
    ]
    mass = law * (blurred[0] + trust) / (blurred[1] + trust)
    return _integer_tables(mass / mass.sum(1, keepdims=True))


def _integer_tables(mass: np.ndarray) -> np.ndarray:
    """[64, 32] of masses [64, 17]: symbols of less than half a unit are left to the escape."""
    from otcuda.coding import Tables

    signed = mass[:, 1:-1] / 2
    rare = signed * 2**PRECISION < 0.5
    radius = np.where(rare.any(1), rare.argmax(1), RADIUS)
    tables = np.zeros((SCALES, 2 * RADIUS + 2), np.uint16)
    for R in np.unique(radius):
        rows = radius == R
        rest = mass[rows, -1] + 2 * signed[rows, R:].sum(1)
        columns = [mass[rows, :1], np.repeat(signed[rows, :R], 2, 1), rest.clip(1e-9)[:, None]]
        pmf = np.concatenate(columns, 1)
        frequencies = Tables.from_pmf(pmf, PRECISION, escape=False).frequencies
        tables[rows, : 2 * R + 1], tables[rows, -1] = frequencies[:, :-1], frequencies[:, -1]
    return tables
