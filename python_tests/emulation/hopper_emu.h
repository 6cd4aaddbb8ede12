// SPDX-License-Identifier: Apache-2.0
// The names of shim.cuh that only sm_90 knows, for g++: barriers that count bytes, bulk copies, and
// products of a warpgroup. mbarriers.cpp and wgmma.cpp hold what they do. Part of cuda_emu.h.
#pragma once

struct alignas(8) Mbarrier {
  uint64_t word;  // what it holds is the emulator's affair
};
void mbarrier_init(Mbarrier* barrier, unsigned arrivals, EMU_LINE);
void fence_proxy_async();
void mbarrier_arrive(Mbarrier* barrier, EMU_LINE);
void mbarrier_arrive_expect(Mbarrier* barrier, unsigned bytes, EMU_LINE);
void mbarrier_wait(Mbarrier* barrier, unsigned parity, EMU_LINE);
namespace emu {
void bulk_copy(void* shared, const void* global, unsigned bytes, Mbarrier* barrier, int line);
void wgmma_fence(const float* d);
void wgmma_commit();
void wgmma_wait(int newest_left);
void wgmma(float* d, const uint32_t* a, uint64_t b, int line);
}  // namespace emu
__attribute__((always_inline)) inline void bulk_copy(void* shared, const void* global,
                                                     unsigned bytes, Mbarrier* barrier, EMU_LINE) {
  emu::bulk_copy(shared, global, bytes, barrier, line);
}
uint32_t shared_address(const void* shared);

inline void wgmma_fence(float (&d)[32]) { emu::wgmma_fence(d); }
inline void wgmma_commit() { emu::wgmma_commit(); }
template <int newest_left>
void wgmma_wait(float (&)[32]) {
  emu::wgmma_wait(newest_left);
}
__attribute__((always_inline)) inline void wgmma_bf16_64x64x16(float (&d)[32],
                                                               const uint32_t (&a)[4], uint64_t b,
                                                               EMU_LINE) {
  emu::wgmma(d, a, b, line);
}
