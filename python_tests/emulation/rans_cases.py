# SPDX-License-Identifier: Apache-2.0
"""Messages for rans32 on the emulator, and what the CPU makes of them."""

from __future__ import annotations

import numpy as np
from emulation.calls import EmulatedRans

from otcuda.coding import Tables, encode_long

GAUSS = Tables.gaussian(np.geomspace(0.11, 32, 64), -128, 127)
CALM = [-1, -1, -1]


def drawn(seed, length, tables):
    """Symbols that follow the tables, escapes among them, and their index."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, tables.count, length)
    slots = rng.integers(0, 2**tables.precision, length)
    symbols = (slots[:, None] >= np.cumsum(tables.frequencies, 1)[index]).sum(1)
    return (symbols + tables.low).astype(np.int32), index.astype(np.int32)


def on_cpu(symbols, tables, index, block):
    """Directory and blocks of the long container."""
    blob = encode_long(symbols, tables, index, block)
    blocks = -(-len(symbols) // block)
    directory = np.frombuffer(blob, "<u4", 3 * blocks, 32).reshape(blocks, 3)
    return directory.copy(), np.frombuffer(blob, np.uint8, offset=32 + 12 * blocks)


def refused(rans, data, directory, index, n=300, block=96, **settings):
    """What the decoder says of damaged bytes: (block, name of the fault), or None."""
    _, faults = rans.decode(data, directory, n, index, block, **settings)
    names = ["", "state", "beyond", "padding", "early", "side", "unfinished", "check", "left over"]
    return None if faults[0] < 0 else (faults[0] >> 8, names[faults[0] & 255])


def check_names_of_damage(emulator):
    """Each RansFault for what it stands for, at its block."""
    symbols, index = drawn(3, 300, GAUSS)
    symbols[::50] = 999
    rans = EmulatedRans(emulator, GAUSS)
    data, directory, _ = rans.encode(symbols, index, 96)
    ends = np.cumsum((128 + 2 * directory[:, 0].astype(int) + directory[:, 1] + 3) // 4 * 4)
    assert refused(rans, data, directory, index) is None

    def changed(block, column, by):
        other = directory.copy()
        other[block, column] += by
        return other

    low_state = data.copy()
    low_state[ends[0] + 2 : ends[0] + 4] = 0
    assert refused(rans, low_state, directory, index) == (1, "state")
    assert refused(rans, data[: ends[3] - 4], directory, index)[0] == 3
    assert refused(rans, data, changed(2, 1, 2**32 - 1 - directory[2, 1]), index) == (2, "beyond")
    assert refused(rans, data, changed(0, 2, 1), index) == (0, "check")
    longer = np.r_[data, np.zeros(4, np.uint8)]
    assert refused(rans, longer, directory, index) == (4, "left over")
    cut = refused(rans, data[: ends[1]], directory, index, size=len(data))
    assert cut == (2, "beyond")
    padded = next(k for k in range(4) if (2 * directory[k, 0] + directory[k, 1]) % 4)
    not_zero = data.copy()
    not_zero[ends[padded] - 1] = 1
    assert refused(rans, not_zero, directory, index) == (padded, "padding")
    words = data.copy()
    words[128:132] ^= 0x55
    assert refused(rans, words, directory, index)[0] == 0
    # The last block ends in padding: cut off, or taken for a side byte that nobody reads.
    n = next(n for n in range(300, 200, -1) if last_padding(rans, symbols, index, n))
    data, directory, _ = rans.encode(symbols[:n], index[:n], 96)
    pad = last_padding(rans, symbols, index, n)
    given = {"n": n, "size": len(data) - pad}
    assert refused(rans, data[:-pad], directory, index[:n], **given)[1] == "padding"
    more = directory.copy()
    more[-1, 1] += 1
    assert refused(rans, data, more, index[:n], n=n) == (len(more) - 1, "unfinished")
    flat = EmulatedRans(emulator, Tables.equiprobable(256))
    data, directory, _ = flat.encode(np.arange(96), None, 96)
    directory[0, 0] -= 2
    assert refused(flat, data[:-4], directory, None, n=96) == (0, "early")
    directory[0, 0] += 4  # two words that nobody takes
    longer = np.r_[data, np.zeros(4, np.uint8)]
    assert refused(flat, longer, directory, None, n=96) == (0, "unfinished")


def last_padding(rans, symbols, index, n):
    """Zero bytes behind the last block of n symbols."""
    _, directory, _ = rans.encode(symbols[:n], index[:n], 96)
    return -(2 * int(directory[-1, 0]) + int(directory[-1, 1])) % 4


def check_message(emulator, tables, symbols, index, block, **settings):
    """Both ways, to the bytes of the CPU."""
    rans = EmulatedRans(emulator, tables)
    directory, blocks = on_cpu(symbols, tables, index, block)
    data, got, faults = rans.encode(symbols, index, block, **settings)
    assert faults == CALM
    assert got.tolist() == directory.tolist()
    assert data.tobytes() == blocks.tobytes()
    back, faults = rans.decode(data, got, len(symbols), index, block, symbols.dtype, **settings)
    assert faults == CALM
    assert back.tolist() == symbols.tolist()


def check_edges_of_fast_loops(emulator, **settings):
    """One symbol in many whole groups that a loop without the question would take for another."""
    at, n = 70, 200
    flat = Tables.equiprobable(256)
    symbols = np.arange(n) % 256
    symbols[at] = 5 + 2**32
    rans = EmulatedRans(emulator, flat)
    assert rans.encode(symbols, None, 224, **settings)[2] == [-1, -1, at]
    two = Tables.from_weights(np.ones((2, 8), int), 10, low=3)  # with an escape
    symbols, index = np.arange(n) % 8 + 3, np.arange(n) // 3 % 2
    symbols[at], index[at] = 11, 0  # the first of the next table, were there no end
    check_message(emulator, two, symbols, index, 224, **settings)
    symbols = np.arange(n) % 100
    symbols[at] = 200
    for dtype, low in (("u1", 100), ("i2", 32600)):
        rans = EmulatedRans(emulator, Tables.equiprobable(256, low=low))
        data, directory, _ = rans.encode(symbols + low, None, 224, **settings)
        _, faults = rans.decode(data, directory, n, None, 224, dtype, **settings)
        assert faults == [-1, -1, at]


def check_borders(emulator, **settings):
    """One case for each bound of the kernels."""
    check_edges_of_fast_loops(emulator, **settings)
    one = {"processors": 1, **settings}
    flat = Tables.equiprobable(256)  # a word every second symbol: windows move, no side bytes
    check_message(emulator, flat, np.arange(700) % 256, None, 352, **one)
    check_message(emulator, flat, np.arange(40 * 32) % 251, None, 32, **one)  # 40 blocks
    broad = Tables.gaussian([32.0], -128, 127)  # words at every place of a window
    check_message(emulator, broad, drawn(2, 1000, broad)[0], None, 1024, **settings)
    check_message(emulator, flat, np.arange(1100 * 32) % 256, None, 32)  # two rounds of the scan
    lone = Tables([[1, 0, 65534]], 16, low=5)  # where idle lanes would find the escape
    check_message(emulator, lone, np.array([5, 7, 7, 6, 7]), None, 32, **settings)
    check_message(emulator, lone, np.array([8, 7, 4, 2**31 - 1, -(2**31), 7, 8, 6]), None, 32)
    few = Tables.gaussian([32.0, 20.0, 26.0], -128, 127)  # the same by an index
    symbols, index = drawn(5, 1500, few)
    check_message(emulator, few, symbols, index, 1024, **settings)
    rans = EmulatedRans(emulator, few)
    data, directory, _ = rans.encode(symbols, index, 1024)
    for dtype, stray in (("i4", 3), ("i4", -1), ("i8", 1 << 32)):
        wrong = index.astype(dtype)
        wrong[700] = stray
        assert rans.encode(symbols, wrong, 1024)[2] == [-1, 700, -1]
        assert rans.decode(data, directory, 1500, wrong, 1024)[1][1] == 700
    strays = np.arange(1500) % 256
    for stray in (256, -1):
        strays[700] = stray
        assert EmulatedRans(emulator, flat).encode(strays, None, 1024)[2] == [-1, -1, 700]
    symbols, index = drawn(1, 500, GAUSS)
    symbols[::9], symbols[4::31] = 128, -129
    check_message(emulator, GAUSS, symbols, index, 224, **settings)
    rans = EmulatedRans(emulator, GAUSS)
    for dtype, stray in (("i2", 64), ("i4", -1), ("u1", 255), ("i8", 1 << 32)):
        wrong = index.astype(dtype)
        wrong[[33, 400]] = stray, 64
        assert rans.encode(symbols, wrong, 224)[2] == [-1, 33, -1]
    four = EmulatedRans(emulator, Tables.equiprobable(4))
    strays = np.arange(100) % 4
    strays[[70, 90]] = 4, -1
    assert four.encode(strays, None, 64)[2] == [-1, -1, 70]
    wide = np.full(70, 2**31 + 3)
    assert EmulatedRans(emulator, lone).encode(wide, None, 64)[2] == [-1, -1, 0]
    symbols = np.array([40] * 40 + [300] * 10)
    data, directory, _ = rans.encode(symbols, np.full(50, 63), 64)
    assert rans.decode(data, directory, 50, np.full(50, 63), 64, "u1")[1] == [-1, -1, 40]
