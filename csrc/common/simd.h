// SPDX-License-Identifier: Apache-2.0
// The instruction set level that kernels run at: the best the CPU has, or the one forced by
// OTCUDA_SIMD or set_simd_level. Forcing a level that is not there is an error, never a silent
// fallback.
//
// "vnni" is avx512 with the instructions that add up products of bytes in 32 bits; few kernels have
// a file for them, all others run their avx512 file. "avx512" forces those files everywhere. Where
// no level is forced and the CPU has them, products of bfloat16 follow where bytes give up; "vnni"
// forces bytes alone, and "bf16" bfloat16 in their place.
#pragma once

#include <string>
#include <vector>

namespace otcuda {

enum class SimdLevel : int { portable, avx2, avx512 };

const char* simd_level_name(SimdLevel level);
std::vector<SimdLevel> simd_levels();  // those this build and this CPU have, portable first
SimdLevel simd_level();                // the one in force
bool simd_vnni();                      // whether it is avx512 with VNNI, "bf16" included
bool simd_bf16_only();                 // whether "bf16" is forced
bool simd_bf16_too();                  // whether products of bfloat16 may follow those of bytes
bool simd_has_vbmi2();  // level avx512 is in force on a CPU that has VBMI and VBMI2, too
// "vnni" and "bf16" are names, too; "auto" goes back to OTCUDA_SIMD or the best one.
void set_simd_level(const std::string& name);

}  // namespace otcuda
