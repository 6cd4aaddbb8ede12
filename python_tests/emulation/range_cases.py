# SPDX-License-Identifier: Apache-2.0
"""Messages for range64 on the emulator, and what the CPU makes of them."""

from __future__ import annotations

import numpy as np
from emulation.calls import EmulatedRange
from emulation.rans_cases import CALM, GAUSS, drawn

from otcuda.coding import Tables, encode_batch

FAULTS = ["", "ends", "byte ends", "corrupt", "unfinished"]


def on_cpu(symbols, tables, index, ends):
    """Bytes of all messages, and where each ends."""
    parts = [np.split(a, ends[:-1]) if a is not None else None for a in (symbols, index)]
    messages = encode_batch(parts[0], tables, parts[1]) if len(ends) else []
    return b"".join(messages), np.cumsum([len(m) for m in messages], dtype=np.int64)


def check_messages(emulator, tables, symbols, index, ends, **settings):
    """Both ways, to the bytes of the CPU."""
    rng = EmulatedRange(emulator, tables)
    want, byte_ends = on_cpu(symbols, tables, index, ends)
    data, got, faults = rng.encode(symbols, index, ends, **settings)
    assert faults == CALM
    assert got.tolist() == byte_ends.tolist()
    assert data.tobytes() == want
    given = (data, got, len(symbols), index, ends, symbols.dtype)
    back, faults = rng.decode(*given, **settings)
    assert faults == CALM
    assert back.tolist() == symbols.tolist()


def named(faults):
    """(message, name of the fault), or None."""
    return None if faults[0] < 0 else (faults[0] >> 8, FAULTS[faults[0] & 255])


def ragged(n, count, seed=0):
    """Ends of messages of all lengths, empty ones among them."""
    rng = np.random.default_rng(seed)
    return np.r_[np.sort(rng.integers(0, n + 1, count - 1)), n].astype(np.int64)


def longest_codes(n):
    """Escapes of the longest codes, that fill every slot: one symbol of all but certain."""
    tables = Tables([[65535]], 16, low=2**31 - 1)
    return tables, np.full(n, -(2**31), np.int64)


def check_borders(emulator, **settings):
    """One case for each bound of the kernels."""
    symbols, index = drawn(1, 700, GAUSS)
    symbols[::9], symbols[4::31] = 128, -129
    check_messages(emulator, GAUSS, symbols, index, ragged(700, 70), **settings)
    tables, long = longest_codes(70)
    check_messages(emulator, tables, long, None, np.arange(0, 71), **settings)
    check_messages(emulator, tables, long, None, np.array([1, 66, 70]), **settings)
    flat = Tables.equiprobable(256)
    check_messages(emulator, flat, np.arange(64) * 3 % 256, None, np.array([64]), **settings)
    many = np.arange(1030)  # two blocks of the scan; every other message is empty, not that at 1024
    check_messages(emulator, flat, (many[:514] % 256).astype("u1"), None, many // 2)
    short, which = drawn(2, 90, GAUSS)
    check_messages(emulator, GAUSS, short.astype("i8"), which.astype("i8"), np.full(1, 90))
    lone = Tables([[1, 0, 65534]], 16, low=5)
    check_messages(emulator, lone, np.array([8, 7, 4, 2**31 - 1, -(2**31), 6]), None, [2, 2, 6])


def check_strays(emulator):
    """What cannot be coded is told, and the rest is coded."""
    symbols, index = drawn(3, 100, GAUSS)
    rng = EmulatedRange(emulator, GAUSS)
    ends = np.array([40, 100])
    for dtype, stray in (("i2", 64), ("i4", -1), ("u1", 255), ("i8", 1 << 32)):
        wrong = index.astype(dtype)
        wrong[[33, 70]] = stray, 64
        assert rng.encode(symbols, wrong, ends)[2] == [-1, 33, -1]
    four = EmulatedRange(emulator, Tables.equiprobable(4))
    strays = np.arange(100) % 4
    strays[[70, 90]] = 4, -1
    assert four.encode(strays, None, ends)[2] == [-1, -1, 70]
    wide = symbols.astype("i8")
    wide[50] = 2**31
    assert rng.encode(wide, index, ends)[2] == [-1, -1, 50]
    symbols = np.array([40] * 40 + [300] * 10)
    which = np.full(50, 63)
    data, byte_ends, _ = rng.encode(symbols, which, [50])
    assert rng.decode(data, byte_ends, 50, which, [50], "u1")[1] == [-1, -1, 40]
    negative = np.full(50, -3)
    data, byte_ends, _ = rng.encode(negative, which, [50])
    assert rng.decode(data, byte_ends, 50, which, [50], "u1")[1] == [-1, -1, 0]


def check_damage(emulator):
    """Each RangeFault for what it stands for; wrong ends stop everything."""
    symbols, index = drawn(4, 300, GAUSS)
    symbols[::50] = 999
    rng, ends = EmulatedRange(emulator, GAUSS), np.array([100, 100, 220, 300])
    data, byte_ends, _ = rng.encode(symbols, index, ends)
    for wrong in ([100, 90, 220, 300], [-1, 100, 220, 300], [100, 100, 220, 299], [0, 0, 301, 300]):
        first = next(k for k, end in enumerate(wrong) if end != ends[k] and end != 0)
        _, none, faults = rng.encode(symbols, index, wrong)
        assert (named(faults), none.tolist()) == ((first, "ends"), [0] * 4)
        back, faults = rng.decode(data, byte_ends, 300, index, wrong)
        assert (named(faults), back.any()) == ((first, "ends"), False)
    for wrong in ([5, 4, 50, 60], [-1, 4, 50, 60], [*byte_ends[:3], len(data) + 1]):
        back, faults = rng.decode(data, wrong, 300, index, ends)
        assert (named(faults)[1], back.any()) == ("byte ends", False)
    moved = byte_ends.copy()
    moved[2] += 9
    faults = rng.decode(data, moved, 300, index, ends)[1]
    assert named(faults) == (2, "unfinished")
    high = data.copy()
    high[byte_ends[1] : byte_ends[1] + 8] = 255
    assert named(rng.decode(high, byte_ends, 300, index, ends)[1])[0] == 2
    corrupt = EmulatedRange(emulator, Tables.from_weights([1, 1, 1], 2, escape=False))
    faults = corrupt.decode(np.full(9, 255, np.uint8), [9], 20, None, [20])[1]
    assert named(faults) == (0, "corrupt")
    # The first code is r 2^P, which is no slot's, and r 3, which is just that of slot 3.
    top = np.frombuffer((2**64 - 2**12).to_bytes(8, "big"), np.uint8)
    assert named(rng.decode(top, [8], 1, None, [1])[1]) == (0, "corrupt")
    third = np.frombuffer(((2**64 - 1) // 4 * 3).to_bytes(8, "big"), np.uint8)
    four = EmulatedRange(emulator, Tables.equiprobable(4))
    assert four.decode(third, [8], 1, None, [1])[0].tolist() == [3]
    needless = encode_batch([[5]], Tables([[0, 3]], 2, low=5))[0]  # by other tables it has a place
    refused = EmulatedRange(emulator, Tables([[1, 2]], 2, low=5))
    message = np.frombuffer(needless, np.uint8)
    assert named(refused.decode(message, [len(message)], 1, None, [1])[1]) == (0, "corrupt")
