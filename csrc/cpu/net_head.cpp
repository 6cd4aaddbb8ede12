// SPDX-License-Identifier: Apache-2.0
#include "cpu/net_head.h"

#include <algorithm>

#include "common/check.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kHalf = kNetStride / 2;  // pixels a position of the features
constexpr int64_t kHalfBlock = kHalf * kHalf;
constexpr int64_t kWindowHeight = 64, kWindowWidth = 256;  // pixels done at a time
constexpr int64_t kMargin = 4;  // pixels around them on which two layers depend: a tile
constexpr int64_t kPlanes = 3;
constexpr int64_t kZeroTap = 0;

// Where bilinear interpolation finds pixel p of n positions: between two of them, in sixteenths.
struct Between {
  Between(int64_t p, int64_t n)
      : at(std::max<int64_t>(0, 2 * p + 1 - kHalf)),
        low(at / kNetStride),
        high(std::min(low + 1, n - 1)),
        share(float(at % kNetStride) * (1.0f / kNetStride)) {}

  int64_t at, low, high;
  float share;
};

float residual_at(const NetPlanes& residual, int64_t plane, int64_t y, int64_t x) {
  const int64_t channel = plane * kHalfBlock + y % kHalf * kHalf + x % kHalf;
  return residual.at(y / kHalf, x / kHalf)[channel];
}

// x0 at 0 and x1 at 1, exactly.
float blended(float x0, float x1, float realism) {
  const float change = x1 - x0;
  return realism < 0.5f ? x0 + realism * change : x1 - change * (1.0f - realism);
}

}  // namespace

// Pixels [top, bottom) x [left, right) of a picture of height x width.
struct NetHead::Window {
  int64_t top, bottom, left, right, height, width;

  // A place of the window with its margin lies in the picture.
  bool holds(int64_t row, int64_t column) const {
    const int64_t y = top - kMargin + row, x = left - kMargin + column;
    return y >= 0 && y < height && x >= 0 && x < width;
  }
};

NetHead::NetHead(const NetArrays& arrays)
    : noise_(net_outputs(arrays, "gain")),
      first_(arrays, "trunk.0", net_inputs(arrays, "trunk.0"), net_outputs(arrays, "trunk.0")),
      blocks_(net_blocks(arrays, "trunk", 1, net_outputs(arrays, "trunk.0"))),
      residual_(arrays, "residual", net_outputs(arrays, "trunk.0"), kPlanes * kHalfBlock),
      gain_(arrays, "gain", net_outputs(arrays, "trunk.0"), 1, true, net_straight(noise_)),
      fine_(arrays, "fine", 2 * kPlanes + noise_, net_outputs(arrays, "fine")),
      out_(arrays, "out", net_outputs(arrays, "fine"), kPlanes) {}

double NetHead::products(int64_t h8, int64_t w8) const {
  const int64_t h = h8 * kHalf, w = w8 * kHalf;
  return first_.products(h8, w8) + net_products_of(blocks_, h8, w8) + residual_.products(h8, w8) +
         gain_.products(h8 * w8) + fine_.products(h, w) + out_.products(h, w);
}

NetHead::Texture NetHead::texture(const NetPlanes& features, int64_t channels, const float* coarse,
                                  NetProgress& progress) const {
  const int64_t h = features.h, w = features.w;
  NetPlanes hidden(h, w, first_.outputs);
  {
    NetPlanes input(h, w, first_.inputs);
    for (int64_t y = 0; y < h; ++y) {
      std::fill(input.at(y, 0), input.at(y, w), 0.0f);
      for (int64_t x = 0; x < w; ++x) {
        const float* known = features.at(y, x);
        float* to = std::copy(known, known + channels, input.at(y, x));
        for (int64_t k = 0; k < first_.inputs - channels; ++k) to[k] = coarse[(k * h + y) * w + x];
      }
    }
    net_conv(first_, input, {}, nullptr, &hidden, progress);
  }
  net_run_blocks(blocks_, &hidden, progress);
  Texture texture = {NetPlanes(h, w, kPlanes * kHalfBlock), NetPlanes(h, w, noise_)};
  net_conv(residual_, hidden, {}, nullptr, &texture.residual, progress);
  progress.step(gain_.products(h * w), [&](Poll& inner) {
    parallel_for(
        h, 4,
        [&](int64_t from, int64_t to) {
          for (int64_t y = from; y < to; ++y) {
            net_products(gain_, &kZeroTap,
                         {hidden.at(y, 0), hidden.channels, texture.gain.at(y, 0),
                          texture.gain.channels, w});
          }
        },
        &inner, net_threads(gain_.products(h * w)));
  });
  return texture;
}

void NetHead::blend(const Texture& texture, const float* fine, float realism, const float* x0,
                    float* planes, NetProgress& progress) const {
  const int64_t height = texture.residual.h * kHalf, width = texture.residual.w * kHalf;
  const int64_t across = (width + kWindowWidth - 1) / kWindowWidth;
  const double products = fine_.products(height, width) + out_.products(height, width);
  progress.step(products, [&](Poll& inner) {
    parallel_for(
        height / kWindowHeight * across, 1,
        [&](int64_t from, int64_t to) {
          for (int64_t k = from; k < to; ++k) {
            const int64_t top = k / across * kWindowHeight, left = k % across * kWindowWidth;
            const int64_t right = std::min(width, left + kWindowWidth);
            blend_window(texture, fine, realism, x0,
                         {top, top + kWindowHeight, left, right, height, width}, planes);
          }
        },
        &inner, net_threads(products));
  });
}

void NetHead::blend_window(const Texture& texture, const float* fine, float realism,
                           const float* x0, const Window& at, float* planes) const {
  const int64_t h = at.bottom - at.top + 2 * kMargin, w = at.right - at.left + 2 * kMargin;
  NetPlanes joined(h, w, fine_.inputs), hidden(h, w, fine_.outputs), change(h, w, kPlanes);
  join(texture, fine, x0, at, &joined);
  net_conv_here(fine_, joined, {true, false}, &hidden);
  // Beyond the picture a layer reads zeros, not what the layer before would make of zeros.
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      if (at.holds(y, x)) continue;
      std::fill(hidden.at(y, x), hidden.at(y, x) + hidden.channels, 0.0f);
    }
  }
  net_conv_here(out_, hidden, {}, &change);
  for (int64_t i = 0; i < kPlanes; ++i) {
    for (int64_t y = at.top; y < at.bottom; ++y) {
      const int64_t row = (i * at.height + y) * at.width;
      for (int64_t x = at.left; x < at.right; ++x) {
        const float here = change.at(y - at.top + kMargin, x - at.left + kMargin)[i];
        const float more = residual_at(texture.residual, i, y, x) + here;
        planes[row + x] = blended(x0[row + x], x0[row + x] + more, realism);
      }
    }
  }
}

// Residual, picture and noise of a window and its margin, zero beyond the picture.
void NetHead::join(const Texture& texture, const float* fine, const float* x0, const Window& at,
                   NetPlanes* joined) const {
  const int64_t size = at.height * at.width;
  for (int64_t row = 0; row < joined->h; ++row) {
    std::fill(joined->at(row, 0), joined->at(row, joined->w), 0.0f);
    for (int64_t column = 0; column < joined->w; ++column) {
      if (!at.holds(row, column)) continue;
      const int64_t y = at.top - kMargin + row, x = at.left - kMargin + column;
      const int64_t pixel = y * at.width + x;
      float* to = joined->at(row, column);
      for (int64_t i = 0; i < kPlanes; ++i) {
        to[i] = residual_at(texture.residual, i, y, x);
        to[kPlanes + i] = x0[i * size + pixel];
      }
      const Between v(y, texture.gain.h), u(x, texture.gain.w);
      for (int64_t k = 0; k < noise_; ++k) {
        const float low = texture.gain.at(v.low, u.low)[k] * (1.0f - u.share) +
                          texture.gain.at(v.low, u.high)[k] * u.share;
        const float high = texture.gain.at(v.high, u.low)[k] * (1.0f - u.share) +
                           texture.gain.at(v.high, u.high)[k] * u.share;
        const float gain = low * (1.0f - v.share) + high * v.share;
        to[2 * kPlanes + k] = gain * fine[k * size + pixel];
      }
    }
  }
}

}  // namespace otcuda::cpu
