// SPDX-License-Identifier: Apache-2.0
// Kernels that are right for bug 0 and wrong in a known way otherwise: what the emulator must find.
#pragma once

void planted_wgmma(int bug, int swizzle, const uint16_t* a, const uint16_t* b, float* out);
void planted(int bug, const float* in, float* out, int n, unsigned* total);
