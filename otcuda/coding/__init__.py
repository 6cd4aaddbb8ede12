# SPDX-License-Identifier: Apache-2.0
"""Entropy coding in integers: the same bytes on every machine.

`Tables` are the models. `encode` and `decode` write messages that describe themselves, `encode_raw`
and `decode_raw` the bare ones for files that do (`encode_long`: blocks of a chosen size);
`RangeEncoder` and `RangeDecoder` work in pieces; `encode_blocks` and `decode_blocks` keep messages
on a CUDA device, `encode_messages` and `decode_messages` many small ones. `compat64` speaks the
formats and names of others.
The format: docs/coding.md.
"""

from otcuda.coding.adaptive import AdaptiveModel
from otcuda.coding.batch import decode_batch, encode_batch
from otcuda.coding.causal import CausalPrior
from otcuda.coding.container import decode, encode
from otcuda.coding.device import DeviceMessage, decode_blocks, encode_blocks, raise_faults
from otcuda.coding.device_batch import (
    DeviceMessages,
    decode_messages,
    encode_messages,
    raise_message_faults,
    upload_messages,
)
from otcuda.coding.range64 import MAX_SYMBOLS, RangeDecoder, RangeEncoder, decode_raw, encode_raw
from otcuda.coding.rans32 import encode_long
from otcuda.coding.tables import Tables

__all__ = [
    "MAX_SYMBOLS",
    "AdaptiveModel",
    "CausalPrior",
    "DeviceMessage",
    "DeviceMessages",
    "RangeDecoder",
    "RangeEncoder",
    "Tables",
    "decode",
    "decode_batch",
    "decode_blocks",
    "decode_messages",
    "decode_raw",
    "encode",
    "encode_batch",
    "encode_blocks",
    "encode_long",
    "encode_messages",
    "encode_raw",
    "raise_faults",
    "raise_message_faults",
    "upload_messages",
]
