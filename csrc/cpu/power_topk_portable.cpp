// SPDX-License-Identifier: Apache-2.0
#include "cpu/list_lanes.h"
#include "cpu/power_topk_body.h"

namespace otcuda::cpu {
namespace {

template <class T>
struct Lanes : ListLanes<T> {
  using Vector = typename ListLanes<T>::Vector;
  using Place = typename TopkIndex<T>::Type;

  static void keep_place(const Vector& highest, const Vector& best, int64_t here, Place* to) {
    for (int k = 0; k < ListLanes<T>::kLanes; ++k)
      if (highest.lane[k] > best.lane[k]) to[k] = Place(here);
  }
};

}  // namespace

TopkKernels power_topk_portable() {
  return {topk_kernel<Lanes<float>>(), topk_kernel<Lanes<double>>()};
}

}  // namespace otcuda::cpu
