// SPDX-License-Identifier: Apache-2.0
#include "cpu/net.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kHalf = kNetStride / 2;  // pixels a position of the layers at 1/8
constexpr int64_t kHalfBlock = kHalf * kHalf;
constexpr int64_t kBlock = kNetStride * kNetStride;
constexpr double kNanosecondsPerPixel = 3.0;
constexpr int64_t kZeroTap = 0;

std::string numbered(const std::string& name, size_t k) { return name + "." + std::to_string(k); }

// C (rgb - 128) / 64 of one pixel, plane i.
float plane_of(const uint8_t* rgb, int i) {
  const float* row = kNetColour[i];
  const float r = float(rgb[0]) - 128.0f, g = float(rgb[1]) - 128.0f, b = float(rgb[2]) - 128.0f;
  return ((row[0] * r + row[1] * g) + row[2] * b) * (1.0f / kNetScale);
}

// Planes of a picture at 1/8, unshuffled: channel 64 i + 8 y + x of plane i.
NetPlanes unshuffled(const uint8_t* rgb, int64_t height, int64_t width, Poll& poll) {
  const int64_t h = (height + kNetAlign - 1) / kNetAlign * (kNetAlign / kHalf);
  const int64_t w = (width + kNetAlign - 1) / kNetAlign * (kNetAlign / kHalf);
  NetPlanes planes(h, w, 3 * kHalfBlock);
  parallel_for(
      h, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t at = from * kHalf; at < to * kHalf; ++at) {
          const uint8_t* row = rgb + std::min(at, height - 1) * width * 3;
          for (int64_t x = 0; x < w * kHalf; ++x) {
            const uint8_t* pixel = row + std::min(x, width - 1) * 3;
            float* to_channels = planes.at(at / kHalf, x / kHalf) + at % kHalf * kHalf + x % kHalf;
            for (int i = 0; i < 3; ++i) to_channels[i * kHalfBlock] = plane_of(pixel, i);
          }
        }
      },
      &poll, threads_for(double(h * w * kHalfBlock) * kNanosecondsPerPixel));
  return planes;
}

// A row of latent positions of pixels at 1/8, unshuffled by 16: [w, 768].
void gather_row(const NetPlanes& pixels, int64_t y, float* row) {
  for (int64_t x = 0; x < pixels.w / 2; ++x, row += 3 * kBlock) {
    for (int64_t k = 0; k < 3 * kNetStride; ++k) {
      const int64_t plane = k / kNetStride, i = k % kNetStride;
      const int64_t channel = plane * kHalfBlock + i % kHalf * kHalf;
      for (int64_t side = 0; side < 2; ++side) {
        const float* from = pixels.at(2 * y + i / kHalf, 2 * x + side) + channel;
        std::copy(from, from + kHalf, row + k * kNetStride + side * kHalf);
      }
    }
  }
}

// The sum of a row of 16 x 16 blocks [w, 768] and of the branch at 1/8, as rows of planes.
void scatter_row(const float* blocks, const NetPlanes& branch, int64_t y, float* planes) {
  const int64_t w = branch.w / 2, width = w * kNetStride;
  const int64_t plane_size = branch.h * kHalf * width;
  for (int64_t k = 0; k < 3 * kNetStride; ++k) {
    const int64_t plane = k / kNetStride, i = k % kNetStride;
    const int64_t channel = plane * kHalfBlock + i % kHalf * kHalf;
    float* row = planes + plane * plane_size + (y * kNetStride + i) * width;
    for (int64_t x = 0; x < 2 * w; ++x) {
      const float* linear = blocks + x / 2 * 3 * kBlock + k * kNetStride + x % 2 * kHalf;
      const float* more = branch.at(2 * y + i / kHalf, x) + channel;
      for (int64_t j = 0; j < kHalf; ++j) row[x * kHalf + j] = linear[j] + more[j];
    }
  }
}

}  // namespace

// --- analysis
// -------------------------------------------------------------------------------------

NetAnalysis::NetAnalysis(const NetArrays& arrays)
    : channels_(net_outputs(arrays, "klt")),
      klt_(arrays, "klt", 3 * kBlock, 1, false, net_straight(channels_)),
      first_(arrays, "net.1", 3 * kHalfBlock, net_outputs(arrays, "net.1")),
      blocks8_(net_blocks(arrays, "net", 2, net_outputs(arrays, "net.1"))),
      down_(arrays, numbered("net", blocks8_.size() + 3), net_outputs(arrays, "net.1"), 3, true,
            net_straight(net_outputs(arrays, numbered("net", blocks8_.size() + 3)))),
      blocks16_(net_blocks(arrays, "net", int(blocks8_.size()) + 4,
                           net_outputs(arrays, numbered("net", blocks8_.size() + 3)))),
      last_(arrays, numbered("net", blocks8_.size() + blocks16_.size() + 5),
            net_outputs(arrays, numbered("net", blocks8_.size() + 3)), channels_) {}

void NetAnalysis::run(const uint8_t* rgb, int64_t height, int64_t width, float* latents,
                      Poll& poll) const {
  Poll start([&](double) {
    poll(0.0);
    return true;
  });
  const NetPlanes pixels = unshuffled(rgb, height, width, start);
  const int64_t h8 = pixels.h, w8 = pixels.w, h = h8 / 2, w = w8 / 2;
  NetProgress progress(poll, first_.products(h8, w8) + net_products_of(blocks8_, h8, w8) +
                                 down_.products(h * w) + net_products_of(blocks16_, h, w) +
                                 last_.products(h, w) + klt_.products(h * w));
  NetPlanes wide(h, w, down_.outputs);
  {
    NetPlanes fine(h8, w8, first_.outputs);
    net_conv(first_, pixels, {}, nullptr, &fine, progress);
    net_run_blocks(blocks8_, &fine, progress);
    int64_t taps[9];
    for (int64_t t = 0; t < 9; ++t) taps[t] = t / 3 * fine.row() + t % 3 * fine.channels;
    progress.step(down_.products(h * w), [&](Poll& inner) {
      parallel_for(
          h, 1,
          [&](int64_t from, int64_t to) {
            for (int64_t y = from; y < to; ++y) {
              net_products(
                  down_, taps,
                  {fine.at(2 * y - 1, -1), 2 * fine.channels, wide.at(y, 0), wide.channels, w});
            }
          },
          &inner, net_threads(down_.products(h * w)));
    });
  }
  net_run_blocks(blocks16_, &wide, progress);
  NetPlanes branch(h, w, channels_);
  net_conv(last_, wide, {}, nullptr, &branch, progress);
  finish(pixels, branch, latents, progress);
}

void NetAnalysis::finish(const NetPlanes& pixels, const NetPlanes& branch, float* latents,
                         NetProgress& progress) const {
  const int64_t h = branch.h, w = branch.w;
  progress.step(klt_.products(h * w), [&](Poll& inner) {
    parallel_for(
        h, 1,
        [&](int64_t from, int64_t to) {
          Buffer<float> row(w * 3 * kBlock), linear(w * klt_.outputs);
          for (int64_t y = from; y < to; ++y) {
            gather_row(pixels, y, row.data());
            net_products(klt_, &kZeroTap, {row.data(), 3 * kBlock, linear.data(), klt_.outputs, w});
            for (int64_t m = 0; m < channels_; ++m) {
              for (int64_t x = 0; x < w; ++x) {
                latents[(m * h + y) * w + x] =
                    kNetScale * (linear[x * klt_.outputs + m] + branch.at(y, x)[m]);
              }
            }
          }
        },
        &inner, net_threads(klt_.products(h * w)));
  });
}

// --- synthesis
// ------------------------------------------------------------------------------------

NetSynthesis::NetSynthesis(const NetArrays& arrays)
    : channels_(net_inputs(arrays, "klt")),
      klt_(arrays, "klt", channels_, 1, false, net_straight(3 * kBlock)),
      first_(arrays, "coarse.0", channels_ + 1, net_outputs(arrays, "coarse.0")),
      blocks16_(net_blocks(arrays, "coarse", 1, net_outputs(arrays, "coarse.0"))),
      width_(net_outputs(arrays, numbered("coarse", blocks16_.size() + 2)) / 4),
      blocks8_(net_blocks(arrays, "fine", 0, width_)),
      last_(arrays, numbered("fine", blocks8_.size() + 1), width_, 3 * kHalfBlock) {
  const std::string up = numbered("coarse", blocks16_.size() + 2);
  net_check_outputs(up, net_outputs(arrays, up), 4 * width_);
  net_check_outputs("klt", net_outputs(arrays, "klt"), 3 * kBlock);
  for (int64_t k = 0; k < 4; ++k) {
    up_.emplace_back(arrays, up, net_outputs(arrays, "coarse.0"), 1, true,
                     net_shuffled_rows(width_, 2, k));
  }
  if (arrays.has("filter.see.weight")) {
    filter_ = std::make_unique<NetFilter>(arrays, "filter", width_);
  }
}

void NetSynthesis::run(const NetLatents& latents, const NetPerception* perception, float* planes,
                       Poll& poll) const {
  const int64_t h = latents.h, w = latents.w;
  const double products = first_.products(h, w) + net_products_of(blocks16_, h, w) +
                          4 * up_[0].products(h * w) + net_products_of(blocks8_, 2 * h, 2 * w) +
                          last_.products(2 * h, 2 * w) + klt_.products(h * w);
  const NetHead* head = perception != nullptr ? perception->head : nullptr;
  NetProgress progress(poll, products + (head != nullptr ? head->products(2 * h, 2 * w) : 0.0) +
                                 (filter_ != nullptr ? filter_->products(2 * h, 2 * w) : 0.0));
  const NetPlanes scaled = input(latents);
  std::optional<NetPlanes> known(features_of(scaled, progress));
  std::unique_ptr<NetHead::Texture> texture;
  if (head != nullptr) {
    texture = std::make_unique<NetHead::Texture>(
        head->texture(*known, width_, perception->coarse, progress));
  }
  net_run_blocks(blocks8_, &*known, progress);
  std::optional<NetPlanes> branch(std::in_place, 2 * h, 2 * w, 3 * kHalfBlock);
  net_conv(last_, *known, {}, nullptr, &*branch, progress);
  if (filter_ == nullptr) known.reset();
  Buffer<float> x0(head != nullptr ? 3 * h * w * kBlock : 0);
  float* base = head != nullptr ? x0.data() : planes;
  if (filter_ == nullptr) {
    finish(scaled, *branch, base, progress);
  } else {
    Buffer<float> blocks(3 * h * w * kBlock);
    finish(scaled, *branch, blocks.data(), progress);
    branch.reset();
    filter_->run(*known, blocks.data(), base, progress);
  }
  if (head != nullptr) {
    head->blend(*texture, perception->fine, perception->realism, x0.data(), planes, progress);
  }
}

// Latents in units of 64, and the plane of the step.
NetPlanes NetSynthesis::input(const NetLatents& latents) const {
  const int64_t h = latents.h, w = latents.w;
  NetPlanes planes(h, w, channels_ + 1);
  for (int64_t y = 0; y < h; ++y) {
    std::fill(planes.at(y, 0), planes.at(y, w), 0.0f);
    for (int64_t x = 0; x < w; ++x) {
      float* at = planes.at(y, x);
      for (int64_t m = 0; m < channels_; ++m) {
        at[m] = latents.values[(m * h + y) * w + x] * (1.0f / kNetScale);
      }
      at[channels_] = latents.t;
    }
  }
  return planes;
}

// What the layers at 1/16 say at 1/8 of the resolution.
NetPlanes NetSynthesis::features_of(const NetPlanes& input, NetProgress& progress) const {
  NetPlanes wide(input.h, input.w, first_.outputs);
  net_conv(first_, input, {}, nullptr, &wide, progress);
  net_run_blocks(blocks16_, &wide, progress);
  NetPlanes known(2 * input.h, 2 * input.w, up_[0].outputs);
  const double products = 4 * up_[0].products(input.h * input.w);
  progress.step(products, [&](Poll& inner) {
    parallel_for(
        input.h, 1,
        [&](int64_t from, int64_t to) {
          for (int64_t y = from; y < to; ++y) {
            for (int64_t k = 0; k < 4; ++k) {
              net_products(up_[size_t(k)], &kZeroTap,
                           {wide.at(y, 0), wide.channels, known.at(2 * y + k / 2, k % 2),
                            2 * known.channels, wide.w});
            }
          }
        },
        &inner, net_threads(products));
  });
  return known;
}

void NetSynthesis::finish(const NetPlanes& input, const NetPlanes& branch, float* planes,
                          NetProgress& progress) const {
  const double products = klt_.products(input.h * input.w);
  progress.step(products, [&](Poll& inner) {
    parallel_for(
        input.h, 1,
        [&](int64_t from, int64_t to) {
          Buffer<float> blocks(input.w * klt_.outputs);
          for (int64_t y = from; y < to; ++y) {
            net_products(klt_, &kZeroTap,
                         {input.at(y, 0), input.channels, blocks.data(), klt_.outputs, input.w});
            scatter_row(blocks.data(), branch, y, planes);
          }
        },
        &inner, net_threads(products));
  });
}

// --- planes to pictures
// ---------------------------------------------------------------------------

void net_picture(const NetCut& cut, const float* planes, uint8_t* out, Poll& poll) {
  const int64_t size = cut.h * cut.w;
  parallel_for(
      cut.height, 16,
      [&](int64_t from, int64_t to) {
        for (int64_t y = from; y < to; ++y) {
          const float* row = planes + (cut.top + y) * cut.w + cut.left;
          for (int64_t x = 0; x < cut.width; ++x) {
            const float p0 = kNetScale * row[x];
            const float p1 = cut.grey ? 0.0f : kNetScale * row[x + size];
            const float p2 = cut.grey ? 0.0f : kNetScale * row[x + 2 * size];
            for (int j = 0; j < 3; ++j) {
              float v = (kNetColour[0][j] * p0 + kNetColour[1][j] * p1) + kNetColour[2][j] * p2;
              v = v + 128.0f;
              v = v > 0.0f ? v : 0.0f;  // NaN too
              v = v < 255.0f ? v : 255.0f;
              // 2^23 leaves no bit behind the point: the sum is rounded to the nearest, ties even.
              out[(y * cut.width + x) * 3 + j] = uint8_t(int((v + 8388608.0f) - 8388608.0f));
            }
          }
        }
      },
      &poll, threads_for(double(cut.height * cut.width) * kNanosecondsPerPixel));
}

}  // namespace otcuda::cpu
