# SPDX-License-Identifier: Apache-2.0
"""
The native core of otcuda; used through otcuda._ops only.
"""
from __future__ import annotations
import collections.abc
import typing
Array: typing.TypeAlias = typing.Any  # a DLPack capsule, or what has the buffer protocol
__all__: list[str] = ['CausalPrior', 'CompatDecoder', 'CompatEncoder', 'ContextNet', 'NetAnalysis', 'NetHead', 'NetSynthesis', 'PowerIndexF32', 'PowerIndexF64', 'RangeDecoder', 'RangeEncoder', 'SOBOL_DIMENSIONS', 'Tables', 'TopCellsIndex', 'adaptive_learn', 'allocation_count', 'backend_paths', 'build_options', 'cell_mass', 'cell_mass_workspace', 'conv3', 'conv3_kernel_gradient', 'fail_allocation', 'fma_peak', 'gaussian_weights', 'heights_adam_solve', 'heights_adam_solve_workspace', 'heights_adam_step', 'heights_asgd_solve', 'laplace_weights', 'list_measure', 'list_newton', 'memory_in_use', 'memory_limit', 'memory_peak', 'net_picture', 'num_threads', 'planar_mass', 'planar_newton', 'power_argmax', 'power_argmax_gap', 'power_argmax_has_wgmma', 'power_argmax_screen', 'power_argmax_screen_workspace', 'power_argmax_wgmma', 'power_argmax_workspace', 'power_topk', 'power_topk_workspace', 'quantise_weights', 'range64_decode', 'range64_decode_many', 'range64_decode_messages', 'range64_decode_rows', 'range64_device_bytes', 'range64_encode', 'range64_encode_many', 'range64_encode_messages', 'range64_encode_rows', 'rans32_decode', 'rans32_device_bytes', 'rans32_encode', 'rans32_image', 'rans32_shape', 'reset_backend_paths', 'reset_memory_peak', 'set_host_num_threads', 'set_memory_limit', 'set_num_threads', 'set_simd_level', 'simd_level', 'simd_levels', 'simd_vnni', 'sobol_samples', 'source_samples', 'symbol_sum', 'top_cells', 'top_cells_product']
class PowerIndexF32:
    """
    Contract: csrc/common/power_index.h.
    """
    def __init__(self, y: Array, tree: bool) -> None:
        ...
    def argmax(self, x: Array, value: Array, index: Array, method: str) -> None:
        """
        x [B, D] -> value [B], index [B].
        """
    def argmax_gap(self, x: Array, value: Array, index: Array, gap: Array, method: str) -> None:
        """
        x [B, D] -> value, index, gap [B].
        """
    def screen_violations(self, x: Array, factor: float) -> int:
        """
        For tests: pairs that the bound with its error terms scaled leaves out wrongly; -1: no screen.
        """
    def set_heights(self, h: Array) -> None:
        """
        h [N].
        """
    def targets(self, index: Array, out: Array) -> None:
        """
        index [M] -> out [M, D]; zeros for -1.
        """
    def topk(self, x: Array, value: Array, index: Array, method: str) -> None:
        """
        x [B, D] -> value, index [B, k].
        """
    @property
    def has_tree(self) -> bool:
        ...
class PowerIndexF64:
    """
    Contract: csrc/common/power_index.h.
    """
    def __init__(self, y: Array, tree: bool) -> None:
        ...
    def argmax(self, x: Array, value: Array, index: Array, method: str) -> None:
        """
        x [B, D] -> value [B], index [B].
        """
    def argmax_gap(self, x: Array, value: Array, index: Array, gap: Array, method: str) -> None:
        """
        x [B, D] -> value, index, gap [B].
        """
    def screen_violations(self, x: Array, factor: float) -> int:
        """
        For tests: pairs that the bound with its error terms scaled leaves out wrongly; -1: no screen.
        """
    def set_heights(self, h: Array) -> None:
        """
        h [N].
        """
    def targets(self, index: Array, out: Array) -> None:
        """
        index [M] -> out [M, D]; zeros for -1.
        """
    def topk(self, x: Array, value: Array, index: Array, method: str) -> None:
        """
        x [B, D] -> value, index [B, k].
        """
    @property
    def has_tree(self) -> bool:
        ...
class ContextNet:
    """
    Weights of csrc/common/context_net.h, checked.
    """
    def __init__(self, arrays: dict) -> None:
        ...
    def decode(self, payload: Array, k: int, off: typing.Any, symbols: Array, values: Array, poll: typing.Any) -> None:
        """
        payload [n] uint8 -> symbols, values [M, h, w] int16.
        """
    def encode(self, symbols: Array, k: int, off: typing.Any, poll: typing.Any) -> bytes:
        """
        symbols [M, h, w] int16 -> bytes.
        """
    def measure(self, symbols: Array, k: int, off: typing.Any, values: Array, scale_index: Array, poll: typing.Any) -> float:
        """
        symbols [M, h, w] int16 -> values, scale_index [M, h, w]; the bits.
        """
    def quantise(self, u: Array, k: int, off: typing.Any, conditional: bool, multiplier: float, outputs: tuple, poll: typing.Any) -> float:
        """
        u [M, h, w] float32 -> (symbols, values, scale_index) [M, h, w]; the bits.
        """
    @property
    def channels(self) -> int:
        ...
class NetAnalysis:
    """
    Weights of the analysis, checked and packed.
    """
    def __init__(self, arrays: dict) -> None:
        ...
    def run(self, rgb: Array, latents: Array, poll: typing.Any) -> None:
        """
        rgb [H, W, 3] uint8 -> latents [M, h, w] float32. Contract: csrc/common/net.h.
        """
    @property
    def channels(self) -> int:
        ...
class NetHead:
    """
    Weights of the perceptual head, checked and packed.
    """
    def __init__(self, arrays: dict) -> None:
        ...
    @property
    def fine_noise(self) -> int:
        ...
    @property
    def inputs(self) -> int:
        ...
    @property
    def layers(self) -> int:
        ...
class NetSynthesis:
    """
    Weights of the synthesis, checked and packed.
    """
    def __init__(self, arrays: dict) -> None:
        ...
    def run(self, latents: Array, t: float, planes: Array, poll: typing.Any) -> None:
        """
        latents [M, h, w] float32 -> planes [3, 16 h, 16 w] float32 in units of 64.
        """
    def run_with_head(self, latents: Array, t: float, head: NetHead, coarse: Array, fine: Array, realism: float, planes: Array, poll: typing.Any) -> None:
        """
        The same blended with the head's picture, on two kinds of noise.
        """
    @property
    def channels(self) -> int:
        ...
    @property
    def features(self) -> int:
        ...
class Tables:
    """
    Integer tables. Contract: csrc/common/tables.h.
    """
    def __init__(self, frequencies: Array, low: int, precision: int, escape: bool) -> None:
        ...
class CausalPrior:
    """
    Contract: csrc/common/causal_prior.h.
    """
    def __init__(self, codes: Array, neighbours: tuple, layers: tuple, precision: int) -> None:
        ...
class RangeEncoder:
    """
    Contract: csrc/common/range64.h.
    """
    def __init__(self) -> None:
        ...
    def adaptive(self, symbols: Array, model: tuple) -> None:
        ...
    def bit(self, values: Array, p1: Array, precision: int) -> None:
        ...
    def bits(self, values: Array, k: int) -> None:
        ...
    def causal(self, symbols: Array, prior: CausalPrior) -> None:
        ...
    def exp_golomb(self, values: Array) -> None:
        ...
    def finish(self) -> bytes:
        ...
    def put(self, tables: Tables, symbols: Array, index: Array | None) -> None:
        ...
    def uniform(self, values: Array, K: int) -> None:
        ...
class RangeDecoder:
    """
    Contract: csrc/common/range64.h.
    """
    def __init__(self, message: bytes) -> None:
        ...
    def adaptive(self, symbols: Array, model: tuple) -> None:
        ...
    def bit(self, values: Array, p1: Array, precision: int) -> None:
        ...
    def bits(self, values: Array, k: int) -> None:
        ...
    def causal(self, symbols: Array, prior: CausalPrior) -> None:
        ...
    def exp_golomb(self, values: Array) -> None:
        ...
    def finish(self) -> None:
        ...
    def get(self, tables: Tables, index: Array | None, symbols: Array) -> None:
        ...
    def uniform(self, values: Array, K: int) -> None:
        ...
class CompatEncoder:
    """
    Contract: csrc/common/compat64.h.
    """
    def __init__(self) -> None:
        ...
    def flush(self) -> bytes:
        ...
    def push(self, symbols: Array, indexes: Array, cdfs: Array, cdf_sizes: Array, offsets: Array) -> None:
        ...
class CompatDecoder:
    """
    Contract: csrc/common/compat64.h.
    """
    def __init__(self, message: bytes) -> None:
        ...
    def get(self, indexes: Array, cdfs: Array, cdf_sizes: Array, offsets: Array, symbols: Array) -> None:
        ...
class TopCellsIndex:
    """
    Lists of y [N, D] at changing heights. Contract: csrc/common/top_cells.h.
    """
    def __init__(self, y: Array) -> None:
        ...
    def lists(self, x: Array, index: Array, inner: Array, cut: Array, start: bool, forced: bool) -> None:
        """
        x [B, D] -> index, inner [B, K], cut [B]; start: index and inner hold lists at other heights; forced: by the screen even where it does not seem to pay.
        """
    def set_heights(self, h: Array) -> None:
        """
        h [N], copied.
        """
    def winners(self, x: Array, index: Array, inner: Array, forced: bool) -> None:
        """
        x [B, D] -> index, inner [B]: the first of each list.
        """
def adaptive_learn(symbols: Array, model: tuple, counters: Array, weights: Array) -> None:
    """
    symbols [h, w] uint16, model -> counters, weights. Contract: csrc/common/adaptive.h.
    """
def allocation_count() -> int:
    ...
def backend_paths() -> dict:
    ...
def build_options() -> dict:
    ...
@typing.overload
def cell_mass(index: Array, mass: Array) -> None:
    """
    index [B] int64 -> mass [N] int64. Contract: csrc/common/cell_mass.h.
    """
@typing.overload
def cell_mass(index: Array, weights: Array, mass: Array) -> None:
    """
    index [B] int64, weights [B] -> mass [N]. Contract: csrc/common/cell_mass.h.
    """
@typing.overload
def cell_mass(index: Array, mass: Array, workspace: Array, stream: int) -> None:
    """
    The same on a CUDA stream. The first 16 bytes of the workspace then tell the first stray sample and the first of infinite weight, int64, -1 for none.
    """
@typing.overload
def cell_mass(index: Array, weights: Array, mass: Array, workspace: Array, stream: int) -> None:
    """
    The same on a CUDA stream.
    """
def cell_mass_workspace(N: int, weighted: bool) -> int:
    """
    Bytes of workspace on the device.
    """
def conv3(x: Array, taps: Array, turned: bool, bias: Array, y: Array) -> None:
    """
    x [n, h, w, C], taps [9, C, O] -> y [n, h, w, O]. Contract: csrc/common/conv3.h.
    """
def conv3_kernel_gradient(x: Array, y: Array, taps: Array) -> None:
    """
    x [n, h, w, C], y [n, h, w, O] -> taps [9, C, O].
    """
def fail_allocation(k: int) -> None:
    ...
def fma_peak(seconds: float) -> float:
    ...
def gaussian_weights(scale_q16: Array, low: int, weights: Array) -> None:
    """
    scale_q16 [T] int64 -> weights [T, n] uint32.
    """
@typing.overload
def heights_adam_solve(y: Array, nu: Array, h: Array, m: Array, v: Array, step: Array, lr: Array, chi2: Array, *, source: str, seed: int, batch: int, bias_correction: bool, beta1: float, beta2: float, eps: float, callback: typing.Any) -> None:
    """
    h, m, v [N] and step [1] in place. Contract: csrc/common/heights_adam_solve.h.
    """
@typing.overload
def heights_adam_solve(y: Array, nu: Array, h: Array, m: Array, v: Array, step: Array, lr: Array, chi2: Array, workspace: Array, stream: int, *, source: str, seed: int, batch: int, bias_correction: bool, beta1: float, beta2: float, eps: float, callback: typing.Any) -> None:
    """
    The same on a CUDA stream, which it does not wait for; lr lies in host memory, step there or on the device: csrc/cuda/heights_adam_solve.h.
    """
def heights_adam_solve_workspace(is_double: bool, N: int, D: int, batch: int) -> int:
    """
    Bytes of workspace on the device.
    """
@typing.overload
def heights_adam_step(h: Array, m: Array, v: Array, mass: Array, nu: Array, step: int, lr: float, beta1: float, beta2: float, eps: float) -> None:
    """
    h, m, v [N] in place from mass, nu [N]. Contract: csrc/common/heights_adam_step.h.
    """
@typing.overload
def heights_adam_step(h: Array, m: Array, v: Array, mass: Array, nu: Array, step: int, lr: float, beta1: float, beta2: float, eps: float, stream: int) -> None:
    """
    The same on a CUDA stream.
    """
def heights_asgd_solve(y: Array, nu: Array, h: Array, mean: Array, step: Array, rate: Array, share: Array, *, source: str, seed: int, batch: int, limit: float, product: bool, callback: typing.Any) -> None:
    """
    h, mean [N] and step [1] in place. Contract: csrc/common/heights_asgd_solve.h.
    """
def laplace_weights(scale_q16: Array, low: int, weights: Array) -> None:
    """
    scale_q16 [T] int64 -> weights [T, n] uint32.
    """
def list_measure(index: Array, inner: Array, reach: Array, h: Array, counts: Array, gap: Array) -> tuple[float, float]:
    """
    -> (mean best value, mean gap); counts, gap [N] written. Contract: csrc/common/list_newton.h.
    """
def list_newton(index: Array, inner: Array, reach: Array, nu: Array, gap: Array, h: Array, *, tolerance: float, room: float, iterations: int) -> dict:
    """
    h [N] in place -> residual, energy, iterations. Contract: csrc/common/list_newton.h.
    """
def memory_in_use() -> int:
    ...
def memory_limit() -> int:
    ...
def memory_peak() -> int:
    ...
def net_picture(planes: Array, top: int, left: int, grey: bool, out: Array, poll: typing.Any) -> None:
    """
    planes [3, h, w] float32 in units of 64 -> out [H, W, 3] uint8, cut out at (top, left).
    """
def num_threads() -> int:
    ...
def planar_mass(y: Array, h: Array, source: str, mass: Array) -> None:
    """
    Masses [N] of the cells of y [N, 2] at heights h [N]. Contract: csrc/common/planar_newton.h.
    """
def planar_newton(y: Array, nu: Array, h: Array, *, source: str, tolerance: float, iterations: int, least: float = 0.0, step: float = 1.0, callback: typing.Any = None) -> dict:
    """
    h [N] in place -> chi2, least, step, iterations. Contract: csrc/common/planar_newton.h.
    """
@typing.overload
def power_argmax(x: Array, y: Array, h: Array, value: Array, index: Array) -> None:
    """
    x [B, D], y [N, D], h [N] -> value [B], index [B], or the same with G in front of each. Contract: csrc/common/power_argmax.h.
    """
@typing.overload
def power_argmax(x: Array, y: Array, h: Array, value: Array, index: Array, workspace: Array, stream: int) -> None:
    """
    The same on a CUDA stream; returns at once.
    """
@typing.overload
def power_argmax_gap(x: Array, y: Array, h: Array, value: Array, index: Array, gap: Array) -> None:
    """
    The best of each sample and its gap: value, index, gap [G, B].
    """
@typing.overload
def power_argmax_gap(x: Array, y: Array, h: Array, value: Array, index: Array, gap: Array, workspace: Array, stream: int) -> None:
    """
    x [B, D], y [N, D], h [N] -> value, index, gap [B] on a CUDA stream; returns at once.
    """
def power_argmax_has_wgmma(device: int) -> bool:
    """
    Whether power_argmax_wgmma runs on the device of this index.
    """
def power_argmax_screen(x: Array, y: Array, h: Array, value: Array, index: Array, workspace: Array, stream: int) -> None:
    """
    The same through the tensor cores, float32: csrc/cuda/power_argmax_screen.h.
    """
def power_argmax_screen_workspace(B: int, N: int, D: int) -> int:
    """
    Bytes of workspace on the device.
    """
def power_argmax_wgmma(x: Array, y: Array, h: Array, value: Array, index: Array, workspace: Array, stream: int) -> None:
    """
    The same by the products of warpgroups, sm_90a; workspace as for power_argmax_screen.
    """
def power_argmax_workspace(is_double: bool, B: int, N: int, D: int) -> int:
    """
    Bytes of workspace on the device.
    """
@typing.overload
def power_topk(x: Array, y: Array, h: Array, value: Array, index: Array) -> None:
    """
    x [G, B, D], y [G, N, D], h [G, N] -> value, index [G, B, k]. Contract: csrc/common/power_topk.h.
    """
@typing.overload
def power_topk(x: Array, y: Array, h: Array, value: Array, index: Array, workspace: Array, stream: int) -> None:
    """
    x [B, D], y [N, D], h [N] -> value, index [B, k] on a CUDA stream; returns at once.
    """
def power_topk_workspace(is_double: bool, B: int, N: int, D: int) -> int:
    """
    Bytes of workspace on the device, of power_argmax_gap too.
    """
def quantise_weights(weights: Array, precision: int, escape: bool, frequencies: Array) -> None:
    """
    weights [T, n] uint32 -> frequencies [T, n] uint32. Contract: csrc/common/tables.h.
    """
def range64_decode(tables: Tables, message: bytes, index: Array | None, symbols: Array, lanes: int) -> None:
    """
    message, index [n] or None -> symbols [n].
    """
def range64_decode_many(tables: Tables, data: bytes, byte_ends: Array, index: Array | None, ends: Array, symbols: Array) -> None:
    """
    data, byte_ends [B], index [n] or None, ends [B] -> symbols [n].
    """
def range64_decode_messages(tables: Tables, image: Array, symbols: Array, index: Array | None, message: tuple, workspace: Array, stream: int) -> None:
    """
    The inverse; symbols [n] and faults of message are out.
    """
def range64_decode_rows(cdf: Array, message: bytes, symbols: Array) -> None:
    """
    cdf [n, L + 1] int32, message -> symbols [n] int32.
    """
def range64_device_bytes(tables: Tables, symbols: Array, messages: int) -> tuple[int, int, int]:
    """
    Bytes that data needs for any symbols, and the workspaces of encoding and decoding.
    """
def range64_encode(tables: Tables, symbols: Array, index: Array | None, lanes: int) -> bytes:
    """
    symbols [n], index [n] or None -> message. Contract: csrc/common/range64.h.
    """
def range64_encode_many(tables: Tables, symbols: Array, index: Array | None, ends: Array, byte_ends: Array) -> bytes:
    """
    symbols [n], index [n] or None, ends [B] int64 -> bytes; byte_ends [B] int64, out.
    """
def range64_encode_messages(tables: Tables, image: Array, symbols: Array, index: Array | None, message: tuple, workspace: Array, stream: int) -> None:
    """
    On a CUDA stream; message is ends [B] int64, and data [bytes] uint8, byte_ends [B] int64 and faults [3] int64, all out: csrc/cuda/range64.h.
    """
def range64_encode_rows(cdf: Array, symbols: Array) -> bytes:
    """
    cdf [n, L + 1] int32, symbols [n] int32 -> message.
    """
@typing.overload
def rans32_decode(tables: Tables, message: bytes, start: int, index: Array | None, block: int, directory: Array, symbols: Array, check: bool = True) -> None:
    """
    blocks from a place in the message, index [n] or None -> symbols [n]. Without check the symbols are not checked: for benchmarks.
    """
@typing.overload
def rans32_decode(tables: Tables, image: Array, symbols: Array, index: Array | None, block: int, message: tuple, workspace: Array, stream: int) -> None:
    """
    The same on a CUDA stream; symbols [n] and faults of message are out.
    """
def rans32_device_bytes(tables: Tables, n: int, block: int) -> tuple[int, int, int]:
    """
    Bytes that data needs for any n symbols, and the workspaces of encoding and decoding.
    """
@typing.overload
def rans32_encode(tables: Tables, symbols: Array, index: Array | None, block: int, directory: Array, head: collections.abc.Callable) -> bytes:
    """
    symbols [n], index [n] or None -> head() and the blocks; directory [ceil(n / block), 3] uint32, out, is filled before. Contract: csrc/common/rans32.h.
    """
@typing.overload
def rans32_encode(tables: Tables, image: Array, symbols: Array, index: Array | None, block: int, message: tuple, workspace: Array, stream: int) -> None:
    """
    The same on a CUDA stream; message is data [bytes] uint8, directory, size [1] int64 and faults [3] int64, all out: csrc/cuda/rans32.h.
    """
def rans32_image(tables: Tables, image: Array) -> None:
    """
    image [words] uint32, out: the tables as a device reads them.
    """
def rans32_shape(tables: Tables) -> tuple[int, int, int, int, int, int, bool, bool, int]:
    """
    T, n, K, low, precision, bucket bits, escape, direct, words of the image: csrc/common/rans32_lookup.h.
    """
def reset_backend_paths() -> None:
    ...
def reset_memory_peak() -> None:
    ...
def set_host_num_threads(n: int) -> None:
    ...
def set_memory_limit(bytes: int) -> None:
    ...
def set_num_threads(n: int) -> None:
    ...
def set_simd_level(level: str) -> None:
    ...
def simd_level() -> str:
    ...
def simd_levels() -> list[str]:
    ...
def simd_vnni() -> bool:
    ...
def sobol_samples(out: Array, source: str, seed: int, stream: int, offset: int) -> None:
    """
    -> out [B, D]. Contract: csrc/common/sobol_samples.h.
    """
@typing.overload
def source_samples(out: Array, source: str, seed: int, stream: int, offset: int) -> None:
    """
    -> out [B, D]. Contract: csrc/common/source_samples.h.
    """
@typing.overload
def source_samples(out: Array, source: str, seed: int, stream: int, offset: int, cuda_stream: int) -> None:
    """
    The same on a CUDA stream.
    """
def symbol_sum(symbols: Array) -> int:
    """
    symbols [n] -> uint32, the check of docs/coding.md.
    """
def top_cells(x: Array, y: Array, h: Array, index: Array, inner: Array, cut: Array) -> None:
    """
    x [B, D], y [N, D], h [N] -> index, inner [B, K], cut [B]. Contract: csrc/common/top_cells.h.
    """
def top_cells_product(x: Array, y: Array, h: Array, L: int, index: Array, inner: Array, cut: Array) -> None:
    """
    The same for x [G, 16, D] of product samples: results have 256 G rows.
    """
SOBOL_DIMENSIONS: int = 32
