// SPDX-License-Identifier: Apache-2.0
#include "cpu/graph_cholesky.h"

#include <algorithm>
#include <cmath>

namespace otcuda::cpu {
namespace {

constexpr int32_t kSmall = 24;  // unknowns that are not dissected further
constexpr int32_t kWaiting = -1, kSeparator = -2;
constexpr double kNothing = 1e-13;  // of a diagonal element: what is left is rounding

}  // namespace

GraphCholesky::GraphCholesky(int64_t N)
    : N_(int32_t(N)),
      begin_(N + 1),
      sum_(N),
      place_(N),
      parent_(N),
      mark_(N),
      column_(N + 1),
      pivot_(N),
      work_(N) {}

void GraphCholesky::factor(Poll* poll) {
  const auto tell = [&](double progress) {
    if (poll != nullptr) (*poll)(progress);
  };
  tell(0.0);
  place_.fill(kWaiting);
  order_.clear();
  dissect(0, N_, &order_);
  for (int32_t k = 0; k < N_; ++k) place_[order_[size_t(k)]] = k;
  plan();
  Buffer<int64_t> filled(N_);
  std::copy(column_.begin(), column_.end() - 1, filled.begin());
  Buffer<int32_t> stack(N_);
  mark_.fill(-1);
  work_.fill(0.0);
  for (int32_t k = 0; k < N_; ++k) {
    if (k % 8 == 0) tell(double(k) / N_);
    const int32_t i = order_[size_t(k)];
    for (int64_t e = begin_[i]; e < begin_[i + 1]; ++e) {
      const int32_t j = place_[beyond_[e]];
      if (j < k) work_[j] = -weight_[e];
    }
    double pivot = sum_[i];
    for (int32_t top = reach(k, stack.data()); top < N_; ++top) {
      const int32_t j = stack[top];
      const double value = work_[j], scaled = value / pivot_[j];
      work_[j] = 0.0;
      for (int64_t e = column_[j]; e < filled[j]; ++e) {
        work_[row_[e]] -= entry_[e] * value;
      }
      pivot -= scaled * value;
      row_[filled[j]] = k;
      entry_[filled[j]++] = scaled;
    }
    // The last of a connected part, whose height is free: it stays where it is.
    pivot_[k] = pivot > kNothing * sum_[i] ? pivot : INFINITY;
  }
}

void GraphCholesky::solve(Buffer<double>* values) {
  for (int32_t k = 0; k < N_; ++k) work_[k] = (*values)[order_[size_t(k)]];
  for (int32_t k = 0; k < N_; ++k) {
    const double value = work_[k];
    for (int64_t e = column_[k]; e < column_[k + 1]; ++e) {
      work_[row_[e]] -= entry_[e] * value;
    }
  }
  for (int32_t k = N_; k-- > 0;) {
    double value = work_[k] / pivot_[k];
    for (int64_t e = column_[k]; e < column_[k + 1]; ++e) {
      value -= entry_[e] * work_[row_[e]];
    }
    work_[k] = value;
    (*values)[order_[size_t(k)]] = value;
  }
}

// Two arrays of a new size; the old ones go first.
void GraphCholesky::renew(int64_t size, Buffer<int32_t>* numbers, Buffer<double>* values) {
  *numbers = Buffer<int32_t>();
  *values = Buffer<double>();
  *numbers = Buffer<int32_t>(size);
  *values = Buffer<double>(size);
}

// Each neighbour once, weights added; `place` is working space.
void GraphCholesky::merge(Buffer<int64_t>* place) {
  mark_.fill(-1);
  int64_t at = 0;
  for (int32_t i = 0; i < N_; ++i) {
    const int64_t from = begin_[i], to = begin_[i + 1];
    begin_[i] = at;
    sum_[i] = 0.0;
    for (int64_t e = from; e < to; ++e) {
      const int32_t j = beyond_[e];
      const double weight = weight_[e];
      sum_[i] += weight;
      if (mark_[j] == i) {
        weight_[(*place)[j]] += weight;
        continue;
      }
      mark_[j] = i;
      (*place)[j] = at;
      beyond_[at] = j;
      weight_[at++] = weight;
    }
  }
  begin_[N_] = at;
}

bool GraphCholesky::meets(int32_t i, int32_t begin, int32_t end) const {
  for (int64_t e = begin_[i]; e < begin_[i + 1]; ++e) {
    const int32_t j = beyond_[e];
    if (j >= begin && j < end && place_[j] == kWaiting) return true;
  }
  return false;
}

// Puts those of [begin, end) that wait in order: two halves, then those of one half that touch the
// other.
void GraphCholesky::dissect(int32_t begin, int32_t end, Vector<int32_t>* order) {
  if (end - begin <= kSmall) {
    for (int32_t i = begin; i < end; ++i) {
      if (place_[i] == kWaiting) order->push_back(i);
    }
    return;
  }
  const int32_t middle = begin + (end - begin) / 2;
  Vector<int32_t> left, right;
  for (int32_t i = begin; i < middle; ++i) {
    if (place_[i] == kWaiting && meets(i, middle, end)) left.push_back(i);
  }
  for (int32_t i = middle; i < end; ++i) {
    if (place_[i] == kWaiting && meets(i, begin, middle)) right.push_back(i);
  }
  const Vector<int32_t>& separator = left.size() <= right.size() ? left : right;
  for (const int32_t i : separator) place_[i] = kSeparator;
  dissect(begin, middle, order);
  dissect(middle, end, order);
  order->insert(order->end(), separator.begin(), separator.end());
}

// Columns of L that row k has entries in, ascending in the tree of eliminations: stack[top ..].
int32_t GraphCholesky::reach(int32_t k, int32_t* stack) {
  int32_t top = N_;
  const int32_t i = order_[size_t(k)];
  mark_[k] = k;
  for (int64_t e = begin_[i]; e < begin_[i + 1]; ++e) {
    int32_t j = place_[beyond_[e]], n = 0;
    if (j > k) continue;
    for (; mark_[j] != k; j = parent_[j]) {
      stack[n++] = j;
      mark_[j] = k;
    }
    while (n > 0) stack[--top] = stack[--n];
  }
  return top;
}

// The tree of eliminations, and the size of each column.
void GraphCholesky::plan() {
  Buffer<int32_t>& ancestor = mark_;
  for (int32_t k = 0; k < N_; ++k) {
    parent_[k] = ancestor[k] = -1;
    const int32_t i = order_[size_t(k)];
    for (int64_t e = begin_[i]; e < begin_[i + 1]; ++e) {
      for (int32_t j = place_[beyond_[e]]; j != -1 && j < k;) {
        const int32_t next = ancestor[j];
        ancestor[j] = k;
        if (next == -1) parent_[j] = k;
        j = next;
      }
    }
  }
  mark_.fill(-1);
  column_.fill(0);
  for (int32_t k = 0; k < N_; ++k) {
    const int32_t i = order_[size_t(k)];
    mark_[k] = k;
    for (int64_t e = begin_[i]; e < begin_[i + 1]; ++e) {
      int32_t j = place_[beyond_[e]];
      if (j > k) continue;
      for (; mark_[j] != k; j = parent_[j]) {
        ++column_[j + 1];
        mark_[j] = k;
      }
    }
  }
  for (int32_t k = 0; k < N_; ++k) column_[k + 1] += column_[k];
  renew(column_[N_], &row_, &entry_);
}

}  // namespace otcuda::cpu
