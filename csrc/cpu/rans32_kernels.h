// SPDX-License-Identifier: Apache-2.0
// What the levels of rans32 offer to rans32.cpp: whole groups of 32 symbols. No standard header but
// <cstdint>: files of one instruction set include this one.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int kRansRun = 1024;  // symbols of an encoder's run, at most

// Coded from the last group to the first.
struct RansEncodeRun {
  const uint32_t* intervals;  // start | frequency << 16; a frequency of 0 is the escape or 2^16
  int precision;
  bool escape;
  uint32_t alphabet, outside;  // symbols of a table; the interval of those it has not
  int32_t low;
  const int32_t* symbol;  // [groups * 32], and the table of each
  const uint16_t* table;
  int64_t groups;     // at most kRansRun / 32
  uint32_t* state;    // [32]
  uint16_t* words;    // written in front of here; room for a word a symbol and 8 more
  uint32_t* escaped;  // [groups], out: a bit for each escaped symbol
};

// How a slot finds its symbol: the arrays of cpu/tables.h.
struct RansLookup {
  const uint32_t* direct;  // null: by places
  const uint16_t* places;  // null: by buckets
  const uint32_t* entries;
  const uint32_t* kept;
  const uint32_t* kept_begin;
  const uint16_t* buckets;
  int bucket_bits;
  int precision;
  bool escape;
  int32_t low;
};

struct RansDecodeRun {
  const uint16_t* table;  // [groups * 32], each below the number of tables
  int64_t groups;
  uint32_t* state;       // [32]
  const uint8_t* words;  // little-endian, of any alignment; in and out: the next one
  const uint8_t* end;
  int32_t* symbol;    // [groups * 32], out; low where escaped
  uint32_t* escaped;  // [groups], out
};

struct RansKernels {
  uint16_t* (*encode)(const RansEncodeRun&);  // the first word written
  // Groups decoded, as long as 32 words remain.
  int64_t (*decode)(const RansLookup&, RansDecodeRun*);
  // Two runs in one loop, so that one's loads hide the other's; as many groups of each.
  int64_t (*decode_two)(const RansLookup&, RansDecodeRun*);
};

RansKernels rans32_portable();
RansKernels rans32_avx2();
RansKernels rans32_avx512();

}  // namespace otcuda::cpu
