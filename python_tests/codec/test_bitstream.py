# SPDX-License-Identifier: Apache-2.0
"""The head of an `.otc` file: every field comes back, seven bytes at 768 x 512, damage is named."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otcuda
from otcuda.codec.bitstream import (
    CUSTOM_MODEL,
    MODES,
    Header,
    check_size,
    info,
    read_header,
    write_file,
)

KODAK = Header(768, 512, "coded", 187, False, 0)


@given(
    st.builds(
        Header,
        width=st.integers(1, 1 << 24),
        height=st.integers(1, 1 << 24),
        mode=st.sampled_from(MODES),
        step=st.integers(0, 255),
        grey=st.booleans(),
        model=st.integers(0, 6),
    ),
    st.binary(max_size=50),
)
def test_head_and_payload_come_back(header, payload):
    read, rest = read_header(write_file(header, payload))
    assert read == header
    assert rest == (payload.rstrip(b"\0") if header.mode == "coded" else payload)


def test_bytes_are_those_of_the_format():
    assert write_file(KODAK, b"\x05\x00").hex() == "c100bb" + "ff05" + "ff03" + "05"


def test_custom_models_bring_their_digest():
    header = dataclasses.replace(KODAK, model=CUSTOM_MODEL, digest=b"\x01\x02\x03\x04")
    data = write_file(header, b"x")
    assert read_header(data) == (header, b"x")
    assert info(data).model == "01020304"


def test_info_counts_every_byte():
    data = write_file(KODAK, b"\x01" * 1467)
    got = info(data)
    assert (got.header_bytes, got.payload_bytes, got.model) == (7, 1467, "0")
    assert got.bpp == pytest.approx(8 * 1474 / 393216)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an .otc"),
        (b"\x89PNG\r\n", "not an .otc"),
        (b"\xc2\x00\x00\x00\x00\x00", "version 2"),
        (b"\xc1\x20\x00\x00\x00\x00", "flags"),
        (b"\xc1\x00\x00\xff\xff", "ends inside the width"),
        (b"\xc1\x00\x00\x01\xff", "ends inside the height"),
        (b"\xc1\x00\x00\x81\x00\x01", "more bytes than it needs"),
        (b"\xc1\x00\x00\xff\xff\xff\xff\x01", "over 16777216"),
    ],
)
def test_damage_is_named(data, words):
    with pytest.raises(otcuda.CorruptDataError, match=words):
        read_header(data)


@given(st.binary(max_size=24))
def test_any_bytes_give_a_header_or_the_named_error(data):
    try:
        header, _ = read_header(b"\xc1" + data)
    except otcuda.CorruptDataError:
        return
    check_size(header.width, header.height, None)


def test_limits_come_before_anything_else():
    with pytest.raises(otcuda.LimitError, match="max_pixels"):
        check_size(60000, 60000)
    with pytest.raises(otcuda.ArgumentError, match="each edge"):
        check_size(0, 5)
    check_size(60000, 60000, None)
