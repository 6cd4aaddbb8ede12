// SPDX-License-Identifier: Apache-2.0
#include "cpu/net_filter.h"

#include <algorithm>

#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kEdge = 2;  // pixels along a position of the filter
constexpr int64_t kChannels = 3 * kEdge * kEdge;
constexpr int64_t kShuffle = 8 / kEdge;      // positions of the filter along one of `known`
constexpr int64_t kFewest = 128;             // rows of positions in a stripe, at least
constexpr int64_t kMost = int64_t(1) << 19;  // positions in a larger one
constexpr double kNanosecondsPerPosition = 4.0;
constexpr int64_t kZeroTap = 0;

}  // namespace

// Rows [top, bottom) of positions, and [first, last) with all on which a rounding of theirs
// depends. At the edges of the picture there is nothing beyond, and layers read zeros there.
struct NetFilter::Stripe {
  int64_t top, bottom, first, last, height, width;

  // Stripes of height x width positions. A layer depends on its tile and those next to it.
  static std::vector<Stripe> all(int64_t height, int64_t width, int64_t layers) {
    const int64_t margin = layers * kNetTile;
    const int64_t rows = std::max(kFewest, kMost / width / kNetTile * kNetTile);
    std::vector<Stripe> stripes;
    for (int64_t top = 0; top < height; top += rows) {
      const int64_t bottom = std::min(height, top + rows);
      stripes.push_back({top, bottom, std::max<int64_t>(0, top - margin),
                         std::min(height, bottom + margin), height, width});
    }
    return stripes;
  }

  int64_t rows() const { return last - first; }

  // Where the values of channel 4 i + 2 y + x begin that a row has, counted from `first`: they lie
  // `kEdge` apart in plane i.
  int64_t row(int64_t channel, int64_t y) const {
    const int64_t plane = channel / (kEdge * kEdge), k = channel % (kEdge * kEdge);
    return ((plane * height + first + y) * kEdge + k / kEdge) * kEdge * width + k % kEdge;
  }
};

NetFilter::NetFilter(const NetArrays& arrays, const std::string& name, int64_t known)
    : see_(arrays, name + ".see", kChannels, net_outputs(arrays, name + ".see")),
      blocks_(net_blocks(arrays, name + ".body", 0, net_outputs(arrays, name + ".see"))),
      last_(arrays, name + ".body." + std::to_string(blocks_.size() + 1),
            net_outputs(arrays, name + ".see"), kChannels) {
  const int64_t width = net_outputs(arrays, name + ".see"), places = kShuffle * kShuffle;
  net_check_outputs(name + ".know", net_outputs(arrays, name + ".know"), places * width);
  for (int64_t k = 0; k < places; ++k) {
    know_.emplace_back(arrays, name + ".know", known, 1, false,
                       net_shuffled_rows(width, kShuffle, k));
  }
}

double NetFilter::products(int64_t h8, int64_t w8) const {
  double sum = 0.0;
  for (const Stripe& at : Stripe::all(h8 * kShuffle, w8 * kShuffle, layers())) {
    const int64_t h = at.rows(), w = at.width;
    sum += see_.products(h, w) + know_[0].products(h * w) + net_products_of(blocks_, h, w) +
           last_.products(h, w);
  }
  return sum;
}

void NetFilter::run(const NetPlanes& known, const float* x0, float* planes,
                    NetProgress& progress) const {
  for (const Stripe& at : Stripe::all(known.h * kShuffle, known.w * kShuffle, layers())) {
    NetPlanes x = seen(known, at, x0, progress);
    net_run_blocks(blocks_, &x, progress);
    NetPlanes change(at.rows(), at.width, kChannels);
    net_conv(last_, x, {}, nullptr, &change, progress);
    parallel_for(
        at.bottom - at.top, 8,
        [&](int64_t from, int64_t to) {
          for (int64_t y = at.top - at.first + from; y < at.top - at.first + to; ++y) {
            for (int64_t c = 0; c < kChannels; ++c) {
              const float *before = x0 + at.row(c, y), *more = change.at(y, 0) + c;
              float* after = planes + at.row(c, y);
              for (int64_t n = 0; n < at.width; ++n) {
                after[kEdge * n] = before[kEdge * n] + more[n * change.channels];
              }
            }
          }
        },
        nullptr, threads_for(double(at.rows() * at.width) * kNanosecondsPerPosition));
  }
}

// What the first layer makes of a stripe of pixels and of what the synthesis knows there.
NetPlanes NetFilter::seen(const NetPlanes& known, const Stripe& at, const float* x0,
                          NetProgress& progress) const {
  NetPlanes pixels(at.rows(), at.width, see_.inputs), seen(at.rows(), at.width, see_.outputs);
  const double products = know_[0].products(at.rows() * at.width);
  progress.step(products, [&](Poll& poll) {
    parallel_for(
        at.rows() / kShuffle, 1,
        [&](int64_t from, int64_t to) {
          for (int64_t y = from; y < to; ++y) {
            for (int64_t i = y * kShuffle; i < (y + 1) * kShuffle; ++i) {
              read(at, x0, i, &pixels);
            }
            for (int64_t k = 0; k < kShuffle * kShuffle; ++k) {
              const float* row = known.at(at.first / kShuffle + y, 0);
              float* to_places = seen.at(kShuffle * y + k / kShuffle, k % kShuffle);
              net_products(know_[size_t(k)], &kZeroTap,
                           {row, known.channels, to_places, kShuffle * seen.channels, known.w});
            }
          }
        },
        &poll, net_threads(products));
  });
  net_conv(see_, pixels, {}, &seen, &seen, progress);
  return seen;
}

// A row of positions: channel 4 i + 2 y + x of plane i.
void NetFilter::read(const Stripe& at, const float* x0, int64_t y, NetPlanes* pixels) {
  float* to = pixels->at(y, 0);
  const int64_t channels = pixels->channels;
  std::fill(to, to + at.width * channels, 0.0f);
  for (int64_t c = 0; c < kChannels; ++c) {
    const float* from = x0 + at.row(c, y);
    for (int64_t n = 0; n < at.width; ++n) to[n * channels + c] = from[kEdge * n];
  }
}

}  // namespace otcuda::cpu
