# SPDX-License-Identifier: Apache-2.0
"""The integer context model: the same symbols everywhere, and worth its bytes."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codec.context_cases import (
    TRAINED_LEVELS,
    K,
    fine_model,
    integers,
    random_latents,
    random_model,
    small_model,
    structured_latents,
    trained_arrays,
    trained_model,
)
from codec.golden_context_net import golden
from decoders import context_net as plain

from otcuda._ops import native
from otcuda.codec import integer_context
from otcuda.codec.integer_context import IntegerContext
from otcuda.errors import (
    ArgumentError,
    CorruptDataError,
    Interrupted,
    LimitError,
    ShapeError,
)

GRIDS = [(1, 1), (1, 2), (2, 1), (1, 9), (3, 5), (4, 4), (7, 6), (17, 9)]
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def net():
    return IntegerContext(small_model())


def latents_of(grid):
    return random_latents(f"u {grid}", (7, *grid))


@pytest.fixture(scope="module")
def plain_choice():
    """The second implementation's symbols of each grid, made once."""
    return {g: plain.nearest(small_model(), latents_of(g), K) for g in GRIDS}


def bytes_of(model, latents, k):
    """Bytes of the payloads of latents [count, M, h, w] in orthonormal units."""
    step = 2 ** integer_context.log2_step(k)
    total = 0
    for u in latents.numpy() / step:
        total += len(model.encode(model.quantise(u, k).symbols, k))
    return total


# --- the same everywhere --------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_second_implementation(grid, net, plain_choice, simd_level, threads):
    choice = net.quantise(latents_of(grid), K)
    for got, want in zip(
        (choice.symbols, choice.values, choice.scale_index), plain_choice[grid], strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("copies", [2, 4])
def test_coarse_copies_equal_the_second_implementation(copies):
    arrays = random_model("coarse", (0, 2, 3, 7), 37, copies)
    u = latents_of((7, 6))
    choice, wanted = IntegerContext(arrays).quantise(u, K), plain.nearest(arrays, u, K)
    for got, want in zip((choice.symbols, choice.values, choice.scale_index), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    arrays["near.weight"][:, 7 + 2 * (copies - 1) : 7 + 2 * copies] = 0  # the last copy
    arrays["far.weight"][:, 7 + 2 * (copies - 1) : 7 + 2 * copies] = 0
    assert (IntegerContext(arrays).quantise(u, K).symbols != choice.symbols).any()


@pytest.mark.parametrize("mean_bits", [4, 5, 6])
@pytest.mark.parametrize("multiplier", [None, 0.1])
def test_finer_means_and_centroids_equal_the_second_implementation(mean_bits, multiplier):
    arrays, grid = fine_model(mean_bits), (7, 6)
    net, u = IntegerContext(arrays), latents_of(grid)
    choice = net.quantise(u, K, multiplier)
    if multiplier is None:
        wanted = plain.nearest(arrays, u, K)
        for got, want in zip(
            (choice.symbols, choice.values, choice.scale_index), wanted, strict=True
        ):
            np.testing.assert_array_equal(got, want)
    payload = net.encode(choice.symbols, K)
    for decoded in (net.decode(payload, K, grid), plain.decode(arrays, payload, K, *grid)):
        np.testing.assert_array_equal(decoded[0], choice.symbols)
        np.testing.assert_array_equal(decoded[1], choice.values)
    assert net.unit == 2.0**-mean_bits
    towards = arrays["centroids"][choice.scale_index] * np.sign(choice.symbols)
    means = choice.values - 2**mean_bits * choice.symbols.astype(int) + towards
    if multiplier is None:
        inside = np.abs(choice.symbols) < 1536 >> (mean_bits - 4)
        inside &= np.abs(u - means * net.unit) < 300
        assert np.abs(means * net.unit + choice.symbols - u)[inside].max() <= 0.5
    assert towards.any()


@pytest.mark.parametrize(("mean_bits", "limit"), [(4, 1535), (5, 767), (6, 383)])
def test_the_largest_symbols_of_finer_means(mean_bits, limit):
    arrays, grid = fine_model(mean_bits), (11, 5)
    net = IntegerContext(arrays)
    symbols = integers(f"any {mean_bits}", (7, *grid), -limit, limit)
    symbols[0, 0, :2] = -limit, limit
    payload = net.encode(symbols, K)
    decoded, values = net.decode(payload, K, grid)
    np.testing.assert_array_equal(decoded, symbols)
    np.testing.assert_array_equal(values, plain.decode(arrays, payload, K, *grid)[1])
    assert np.sign(values[0, 0, :2]).tolist() == [-1, 1]
    symbols[3, 4, 2] = limit + 1
    with pytest.raises(ArgumentError, match=f"{limit + 1}, expected -{limit} to {limit}"):
        net.encode(symbols, K)


@pytest.mark.parametrize("log2_step", [3.0, 4.0, 5.0, 7.0, 9.0])
def test_means_reach_blocks_nearly_white_and_are_as_fine_as_that_allows(log2_step):
    bits, white = integer_context.mean_bits(log2_step), 120 * 16 * 3**0.5 / 2**log2_step
    assert 4 <= bits <= 6
    assert white * 2**bits <= 8191
    assert bits == 6 or white * 2 ** (bits + 1) > 8191


def test_centroids_are_the_means_of_intervals():
    rng = np.random.default_rng(0)
    for t in (12, 24, 36):
        r = rng.laplace(0, 2.0 ** (t / 6 - 5), 4_000_000)
        inside = (r > 0.5) & (r < 1.5)
        below = integer_context.integer_centroids(6)[t] / 64
        assert 1 - r[inside].mean() == pytest.approx(below, abs=0.012)


def test_levels_and_threads_agree_on_a_whole_picture():
    model = IntegerContext(random_model("wide", (0, 6, 24, 64), 96))
    u = random_latents("picture", (64, 19, 32))
    seen = set()
    for level, threads in itertools.product(native.simd_levels(), (1, 2, 3)):
        native.set_simd_level(level)
        native.set_num_threads(threads)
        choice = model.quantise(u, K)
        arrays = (choice.symbols, choice.values, choice.scale_index)
        payload = model.encode(choice.symbols, K)
        seen.add((*(a.tobytes() for a in arrays), payload, choice.bits))
    native.set_simd_level("auto")
    native.set_num_threads(0)
    assert len(seen) == 1


def test_the_random_model_reaches_every_corner(net):
    u = np.concatenate([random_latents(f"corner {n}", (7, 17, 9)) for n in range(6)], 1)
    choice = net.quantise(u, K)
    means = choice.values.astype(int) - 16 * choice.symbols
    assert np.unique(choice.scale_index).size > 30
    assert {0, 63} <= set(choice.scale_index.ravel())
    assert np.abs(means).max() > 20
    assert {-1535, 1535} <= set(choice.symbols.ravel())
    escaped = choice.scale_index[np.abs(choice.symbols) > 15]
    assert escaped.min() < 12
    assert escaped.max() >= 48


@pytest.mark.parametrize("grid", GRIDS)
def test_the_second_decoder_reads_the_payload(grid, net):
    symbols = net.quantise(latents_of(grid), K).symbols
    payload = net.encode(symbols, K)
    got, values = plain.decode(small_model(), payload, K, *grid)
    np.testing.assert_array_equal(got, symbols)
    np.testing.assert_array_equal(values, net.measure(symbols, K).values)


def test_bytes_are_the_pinned_ones():
    pinned = json.loads((GOLDEN / "context_net_v1.json").read_text())
    assert json.loads(golden()["context_net_v1.json"]) == pinned


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 33, K, 160, 255])
@pytest.mark.parametrize("grid", GRIDS)
def test_round_trip(grid, k, net):
    choice = net.quantise(latents_of(grid), k)
    payload = net.encode(choice.symbols, k)
    symbols, values = net.decode(payload, k, grid)
    np.testing.assert_array_equal(symbols, choice.symbols)
    np.testing.assert_array_equal(values, choice.values)
    assert not payload.endswith(b"\0")
    assert choice.bits - 1 <= 8 * len(payload) + 24  # dropped zeros may end a message early
    assert 8 * len(payload) <= choice.bits + 12
    measured = net.measure(choice.symbols, k)
    assert measured.bits == choice.bits
    np.testing.assert_array_equal(measured.scale_index, choice.scale_index)


def test_any_symbol_can_be_coded(net):
    grid = (11, 5)
    symbols = integers("any", (7, *grid), -1535, 1535)
    symbols[:, ::2] = integers("some", symbols[:, ::2].shape, -20, 20)
    symbols[0, 0, :2] = -1535, 1535
    payload = net.encode(symbols, K)
    np.testing.assert_array_equal(net.decode(payload, K, grid)[0], symbols)
    np.testing.assert_array_equal(plain.decode(small_model(), payload, K, *grid)[0], symbols)
    symbols[3, 4, 2] = 1536
    with pytest.raises(ArgumentError, match="1536, expected -1535 to 1535"):
        net.encode(symbols, K)


def test_rounding_is_to_the_nearest_value(net):
    u = np.clip(latents_of((17, 9)), -50, 50)
    choice = net.quantise(u, K)
    assert np.abs(choice.values / 16 - u).max() <= 0.5


def test_channels_that_are_off_leave_no_trace(net):
    grid = (9, 7)
    off = np.array([0, 1, 0, 0, 1, 1, 0], bool)
    u = latents_of((17, 9))[:, : grid[0], : grid[1]]
    choice = net.quantise(u, K, off=off)
    assert not choice.symbols[off].any()
    assert not choice.values[off].any()
    other = u.copy()
    other[off] = 7
    np.testing.assert_array_equal(net.quantise(other, K, off=off).symbols, choice.symbols)
    payload = net.encode(choice.symbols, K, off=off)
    assert 8 * len(payload) <= choice.bits + 12
    assert choice.bits < net.measure(choice.symbols, K).bits
    for decoded in (
        net.decode(payload, K, grid, off=off),
        plain.decode(small_model(), payload, K, *grid, off=off),
    ):
        np.testing.assert_array_equal(decoded[0], choice.symbols)
        np.testing.assert_array_equal(decoded[1], choice.values)


# --- the conditional power diagram ----------------------------------------------------------------


def length_of(tables, t, symbol):
    """Bits of one symbol, by the sentence of docs/format.md."""
    row, t = tables[t].astype(float), int(t)
    radius, P = (np.count_nonzero(row) - 2) // 2, np.log2(row.sum())
    if abs(symbol) <= radius:
        return P - np.log2(row[2 * abs(symbol) - (symbol > 0)])
    order = max(0, t // 6 - 5)
    rest = abs(symbol) - radius - 1
    return P - np.log2(row[31]) + 1 + 2 * int(np.log2((rest >> order) + 1)) + 1 + order


def test_conditional_takes_the_least_cost(net):
    u = np.clip(latents_of((17, 9)), -30, 30)
    multiplier = 0.11
    choice = net.quantise(u, K, multiplier)
    tables = small_model()["tables"]
    residual = u.astype(np.float64) - (choice.values - 16.0 * choice.symbols) / 16
    moved, bits = 0, 0.0
    for r, t, s in zip(
        residual.ravel(), choice.scale_index.ravel(), choice.symbols.ravel(), strict=True
    ):
        nearest = int(np.floor(r + 0.5))
        costs = {
            n: (r - n) ** 2 + multiplier * length_of(tables, t, n)
            for n in {nearest, nearest - int(np.sign(nearest)), 0}
        }
        assert costs[int(s)] <= min(costs.values()) + 1e-4
        moved += s != nearest
        bits += length_of(tables, t, int(s))
    assert moved > 30
    assert bits == pytest.approx(choice.bits, abs=0.05)
    assert choice.bits < net.quantise(u, K).bits


def test_a_multiplier_of_zero_is_nearest(net):
    u = latents_of((17, 9))
    np.testing.assert_array_equal(net.quantise(u, K, 0.0).symbols, net.quantise(u, K).symbols)


# --- it is no stub --------------------------------------------------------------------------------


@pytest.mark.parametrize("k", TRAINED_LEVELS)
def test_integers_cost_what_the_float_model_costs(k):
    torch = pytest.importorskip("torch")
    from otcuda.codec.networks import quantise_hard

    latents = structured_latents(9, 8, 20)
    with torch.no_grad():
        level = torch.full((8,), integer_context.log2_step(k))
        bits = float(trained_model()(latents, level, quantise_hard)[1].sum())
    assert 8 * bytes_of(IntegerContext(trained_arrays()), latents, k) == pytest.approx(
        bits, rel=0.02
    )


@pytest.mark.parametrize("k", TRAINED_LEVELS)
def test_integers_turned_back_to_floats_cost_the_same(k):
    torch = pytest.importorskip("torch")
    from otcuda.codec.networks import quantise_hard

    latents = structured_latents(9, 4, 24)
    model = copy.deepcopy(trained_model())
    floats = integer_context.float_parameters(trained_arrays())
    model.load_state_dict({name: torch.from_numpy(a) for name, a in floats.items()})
    level = torch.full((4,), integer_context.log2_step(k))
    with torch.no_grad():
        _, wanted = trained_model()(latents, level, quantise_hard)
        _, got = model(latents, level, quantise_hard)
    assert abs(got.sum() / wanted.sum() - 1) < 0.01


@pytest.mark.parametrize("k", TRAINED_LEVELS)
def test_the_context_is_worth_a_tenth_of_the_bytes(k):
    latents = structured_latents(9, 8, 20)
    with_context = bytes_of(IntegerContext(trained_arrays()), latents, k)
    deaf = dict(trained_arrays())
    for name in ("near", "far", "mix.1", "mix.2"):
        weight = deaf[f"{name}.weight"].copy()
        weight[:, 24 if "mix" in name else 0 :] = 0  # neighbours, and channels at the position
        deaf[f"{name}.weight"] = weight
    assert bytes_of(IntegerContext(deaf), latents, k) > 1.1 * with_context
    # Nor would the best code without context do: the empirical entropy of each channel.
    symbols = np.rint(latents.numpy() / 2 ** integer_context.log2_step(k)).astype(int)
    entropy = 0.0
    for channel in symbols.transpose(1, 0, 2, 3):
        counts = np.unique(channel, return_counts=True)[1]
        entropy -= (counts * np.log2(counts / counts.sum())).sum()
    assert entropy / 8 > 1.1 * with_context


def test_the_tables_are_used():
    latents = structured_latents(9, 2, 20)
    even = dict(trained_arrays())
    even["tables"] = np.full((64, 32), 128, np.uint16)
    uniform = bytes_of(IntegerContext(even), latents, 184)
    assert uniform > 1.2 * bytes_of(IntegerContext(trained_arrays()), latents, 184)


# --- from float to integers -----------------------------------------------------------------------


def test_weights_file_keeps_the_model(tmp_path, net):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "weights.safetensors"
    save_file({**net.tensors(), "synthesis.other": np.zeros(3, np.float32)}, path)
    again = IntegerContext.from_tensors(load_file(path))
    u = latents_of((7, 6))
    assert again.encode(again.quantise(u, K).symbols, K) == net.encode(
        net.quantise(u, K).symbols, K
    )


def test_laplace_tables_stay_near_the_law():
    tables = integer_context.tables_from_counts(np.zeros((64, 17))).astype(float)
    law = integer_context.laplace_masses()
    assert (tables.sum(1) == 65536).all()
    np.testing.assert_array_equal(tables[:, 1:31:2], tables[:, 2:31:2].clip(tables[:, 1:31:2]))
    zero = -(law[:, 0] * np.log2(tables[:, 0] / 65536 / law[:, 0]))
    assert zero.max() < 1e-3  # bits a symbol lost on zeros


def test_counted_tables_beat_the_law_on_what_they_counted():
    rng = np.random.default_rng(0)
    scale = np.repeat(np.arange(64), 3000)
    spread = 2.0 ** (scale / 6 - 5) * np.exp(rng.normal(0, 1, scale.size))  # heavier tails
    symbols = np.rint(rng.laplace(0, 1, scale.size) * spread).astype(int)
    counts = integer_context.count_symbols(symbols[::2], scale[::2])
    assert counts.sum() == scale[::2].size
    tables = integer_context.tables_from_counts(counts)
    np.testing.assert_array_equal(tables[:, 1:31:2] > 0, tables[:, 2:31:2] > 0)
    law = integer_context.tables_from_counts(np.zeros((64, 17)))

    others = np.stack([scale[1::2], symbols[1::2]])
    pairs, often = np.unique(others, axis=1, return_counts=True)

    def bits(which):
        return sum(n * length_of(which, *pair) for n, pair in zip(often, pairs.T, strict=True))

    assert bits(tables) < 0.97 * bits(law)


def test_importing_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np\n"
        "import otcuda.codec.integer_context as c; print(c.log2_step(160))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "8.0\n"


# --- what is refused ------------------------------------------------------------------------------


def changed(name, change):
    arrays = dict(fine_model(5))
    arrays[name] = change(arrays[name].copy())
    return arrays


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("deep.bias", put(3, 2**31 - 1), "deep: output 3 can reach"),
        ("near.bias", put(3, -(2**31)), "near . far: output 3 can reach"),
        ("deep.shift", put(5, 31), r"deep.shift\[5\] is 31, expected 0 to 30"),
        ("edges", put(1, 5), "edges does not rise"),
        ("edges", put(0, 1), "edges runs from 1"),
        ("edges", lambda e: e[:1], "edges has 1 entries"),
        ("tables", put((7, 0), 0), r"tables\[7\]"),
        ("tables", put((7, 31), 0), r"tables\[7\]"),
        ("tables", put((63, 0), 65535), r"tables\[63\] sums to"),
        ("near.weight", lambda w: w.astype(np.int16), "near.weight is int16, expected int8"),
        ("near.weight", lambda w: w[:, :-1], "near.weight has 10 inputs, expected 9 and 1 to 6"),
        ("offset", lambda o: o[:4], r"offset has shape \[4, 7\]"),
        ("mix.2.weight", lambda w: w[:, :-1], "mix.2.weight has shape"),
        ("out.0.weight", lambda w: np.empty(w.shape, object), "out.0.weight is no array"),
        ("mean_bits", put(0, 7), "mean_bits is 7, expected 4 to 6"),
        ("mean_bits", put(0, 3), "mean_bits is 3, expected 4 to 6"),
        ("mean_bits", lambda b: b.astype(np.int16), "mean_bits is int16"),
        ("centroids", put(9, 17), r"centroids\[9\] is 17, expected 0 to 16"),
        ("centroids", put(0, -1), r"centroids\[0\] is -1, expected"),
        ("centroids", lambda c: c[:63], "centroids has shape"),
    ],
)
def test_models_that_could_go_wrong_are_refused(name, change, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        IntegerContext(changed(name, change))


@pytest.mark.parametrize("name", sorted(small_model()))
def test_a_missing_array_is_named(name):
    arrays = {key: a for key, a in small_model().items() if key != name}
    with pytest.raises(ArgumentError, match=f"has no array {name}$"):
        IntegerContext(arrays)


def test_the_largest_sums_that_pass_are_exact():
    """Biases at the limit of the check: a sum that left int32 would change symbols."""
    arrays = dict(small_model())
    reach = 127 * np.abs(arrays["deep.weight"].astype(np.int64)).sum((1, 2, 3))
    half = (1 << arrays["deep.shift"].astype(np.int64)) >> 1
    sign = np.where(np.arange(37) % 2, 1, -1)
    arrays["deep.bias"] = (sign * (2**31 - 1 - reach - half)).astype(np.int32)
    u = latents_of((7, 6))
    got, want = IntegerContext(arrays).quantise(u, K), plain.nearest(arrays, u, K)
    np.testing.assert_array_equal(got.values, want[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n, u: n.quantise(u, 256), ArgumentError, "k is 256"),
        (lambda n, u: n.quantise(u, -1), ArgumentError, "k is -1"),
        (lambda n, u: n.quantise(u[:5], K), ShapeError, "u has shape"),
        (lambda n, u: n.quantise(u[:, :0], K), ArgumentError, "grid is 0 x 6"),
        (lambda n, u: n.quantise(u * np.nan, K), ArgumentError, "not finite"),
        (lambda n, u: n.quantise(u, K, -1.0), ArgumentError, "multiplier is -1"),
        (lambda n, u: n.quantise(u, K, off=np.zeros(3)), ShapeError, "off has shape"),
        (lambda n, u: n.measure(u, K), ArgumentError, "symbols is float32"),
        (lambda n, u: n.encode(np.full(u.shape, 70000), K), ArgumentError, "outside int16"),
        (lambda n, u: n.decode(b"", K, (0, 4)), ArgumentError, "grid is 0 x 4"),
        (lambda n, u: n.decode(b"", K, (1 << 20, 1 << 20)), ArgumentError, "2.26 positions"),
    ],
)
def test_arguments_are_checked(call, error, message, net):
    with pytest.raises(error, match=message):
        call(net, latents_of((7, 6)))


def damaged(payload, n):
    """The n-th way to break a payload, and random bytes."""
    out = bytearray(payload)
    random = integers(f"damage {n}", (6,), 0, 1 << 30)
    if n % 4 == 0:
        out[random[0] % len(out)] ^= 1 << random[1] % 8
    elif n % 4 == 1:
        del out[random[0] % len(out) :]
    elif n % 4 == 2:
        return hashlib.shake_256(str(n).encode()).digest(int(random[0] % 300))
    else:
        out += bytes(int(r) % 256 for r in random)
    return bytes(out)


def test_damaged_payloads_end_in_an_error_or_in_symbols(net):
    grid = (13, 11)
    symbols = net.quantise(random_latents("damage", (7, *grid)), K).symbols
    payload = net.encode(symbols, K)
    errors = 0
    for n in range(400):
        try:
            got, values = net.decode(damaged(payload, n), K, grid)
        except CorruptDataError:
            errors += 1
        else:
            assert np.abs(got).max() <= 1535
            np.testing.assert_array_equal(net.measure(got, K).values, values)
    assert errors > 40  # the coder sees some; a check of all is the container's
    for bad in (payload + b"\0", payload + b"\1" * 9):
        with pytest.raises(CorruptDataError, match="damaged"):
            net.decode(bad, K, grid)


def test_the_callback_hears_of_progress_and_can_stop():
    model = IntegerContext(random_model("wide", (0, 6, 24, 64), 96))
    u = np.tile(random_latents("picture", (64, 19, 32)), (1, 6, 4))
    native.set_simd_level("portable")
    try:
        heard = []
        model.quantise(u, K, callback=heard.append)
        assert len(heard) >= 5
        assert heard == sorted(heard)
        assert heard[0] >= 0
        assert heard[-1] <= 1
        with pytest.raises(Interrupted):
            model.quantise(u, K, callback=lambda progress: progress < 0.05)
    finally:
        native.set_simd_level("auto")


def test_memory_that_runs_out_is_an_error_and_leaks_nothing(net):
    symbols = net.quantise(latents_of((7, 6)), K).symbols
    payload = net.encode(symbols, K)
    before = native.memory_in_use()
    calls = [lambda: net.encode(symbols, K), lambda: net.decode(payload, K, (7, 6))]
    calls.append(lambda: IntegerContext(small_model()))
    for call in calls:
        for k in itertools.count(1):
            native.fail_allocation(k)
            try:
                call()
                break
            except LimitError:
                assert native.memory_in_use() == before
            finally:
                native.fail_allocation(0)
        assert k > 8
