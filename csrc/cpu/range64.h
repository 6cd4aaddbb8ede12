// SPDX-License-Identifier: Apache-2.0
// Whole arrays through range64 and tables. Contract: csrc/common/range64.h, csrc/common/tables.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/range64.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

// symbols[i] by table index[i] < tables.count(); without escape inside the alphabet.
void range64_put(RangeEncoder& encoder, const Tables& tables, const int32_t* symbols,
                 const uint32_t* index, size_t n);

// The inverse. Any bytes give n int32; decoder.corrupt() tells those that no encoder writes.
void range64_get(RangeDecoder& decoder, const Tables& tables, const uint32_t* index,
                 int32_t* symbols, size_t n);

}  // namespace otcuda::cpu
