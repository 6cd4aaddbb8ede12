// SPDX-License-Identifier: Apache-2.0
// The five phases, and what is done with each symbol: chosen, counted, encoded, decoded.
//
// The first layer is linear, so its sums are kept and only what became known in a phase is added to
// them, pair of channels by pair, where it is not zero. The other layers are evaluated at the
// positions of the phase alone.
#include "cpu/context_net.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/range64.h"
#include "common/simd.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kChunk = 16 * kContextPositions;  // positions a thread takes at a time
constexpr int kFirstTaps = 17;
constexpr double kNanosecondsPerProduct = 0.05;
constexpr int64_t kMostPositions = int64_t(1) << 26;

const ContextKernels& kernels() {
#if OTCUDA_X86_LEVELS
  if (simd_level() == SimdLevel::avx512) return context_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return context_kernels_avx2;
#endif
  return context_kernels_portable;
}

struct Tap {
  int i, j;
};

// Taps of the first layer in the order of its packed weights.
std::array<Tap, kFirstTaps> first_taps() {
  std::array<Tap, kFirstTaps> taps{};
  int n = 0;
  for (int q = 0; q < 9; ++q) taps[n++] = {q / 3 - 1, q % 3 - 1};
  for (int q = 0; q < 9; ++q) {
    if (q != 4) taps[n++] = {(q / 3 - 1) * kContextFar, (q % 3 - 1) * kContextFar};
  }
  return taps;
}

int32_t pack_pair(int a, int b) { return int32_t(uint32_t(uint16_t(a)) | uint32_t(b) << 16); }

class Pass {
 public:
  Pass(const ContextNet& net, const ContextPicture& picture, int16_t* values, Poll& poll);

  // Calls coder.code(at, mean, scale_index) -> symbol for every symbol in the order of the stream,
  // coder.skip(at, scale_index) for those of channels that are off, coder.check() now and then;
  // `at` counts in [M, h, w].
  template <class Coder>
  void run(Coder& coder) {
    for (int phase = 0; phase < kContextPhases; ++phase) {
      list_positions(phase);
      if (n_ == 0) continue;
      for (int g = 0; g < net_.sizes.groups(); ++g) {
        evaluate(g);
        code_group(coder, phase, g);
        coder.check();
      }
      done_ += n_;
      if (phase + 1 < kContextPhases) absorb();
    }
  }

 private:
  double progress() const { return double(done_) / double(h_ * w_); }
  // Progress in terms of the picture, whatever loop is running.
  Poll inner() {
    return Poll([this](double) {
      poll_(progress());
      return true;
    });
  }
  void begin();
  void list_positions(int phase);
  void evaluate(int g);
  void evaluate_chunk(int g, int64_t from, int64_t to);
  void absorb();
  ContextEntry* list_known(int64_t at, ContextEntry* entry);
  void add_sources(bool everywhere);
  void add_sources_to(int64_t i, int64_t j, bool always);
  int sixteenths(int64_t at) const { return context_sixteenths(values_[at], net_.mean_bits); }

  template <class Coder>
  void code_group(Coder& coder, int phase, int g) {
    const int a = net_.sizes.edges[g], b = net_.sizes.edges[g + 1];
    const int seen = net_.sizes.seen_by_mix(), M = net_.sizes.M();
    const int16_t* offset = net_.offset.data() + phase * M;
    for (int64_t p = 0; p < n_; ++p) {
      if (p % kChunk == 0) poll_(progress());
      const int16_t* mean = outputs_.data() + p * output_stride_;
      const int16_t* scale = mean + (b - a);
      int16_t* feature = features_.data() + p * feature_stride_ + net_.sizes.H;
      for (int c = a; c < b; ++c) {
        const int64_t at = c * h_ * w_ + positions_[p];
        const int t = context_scale_index(scale[c - a], offset[c], k_);
        int value = 0;
        if (off_ == nullptr || off_[c] == 0) {
          const int symbol = coder.code(at, mean[c - a], t);
          value = context_value(symbol, mean[c - a], net_.centroid[t], net_.mean_bits);
        } else {
          coder.skip(at, t);
        }
        values_[at] = int16_t(value);
        if (c < seen) feature[c] = int16_t(context_clip(sixteenths(at), kContextInputLimit));
      }
    }
  }

  const ContextNet& net_;
  const ContextKernels& kernels_;
  const int64_t h_, w_;
  const int k_;
  const uint8_t* off_;
  int16_t* values_;
  Poll& poll_;
  int64_t done_ = 0;

  const std::array<Tap, kFirstTaps> taps_ = first_taps();
  std::array<int64_t, 9> deep_taps_{};
  const int64_t zero_tap_ = 0;
  ContextLayer first_;
  Buffer<int32_t> sums_;          // of the first layer, [h w, width]
  Buffer<int16_t> activations_;   // of the first layer, [h + 2, w + 2, width], a border of zeros
  Buffer<ContextEntry> entries_;  // of the positions that became known
  Buffer<const ContextEntry*> sources_;  // [h w, 2] begin and end; both null: nothing new there

  Buffer<int32_t> positions_;  // of the phase, n_ of them and padding
  int64_t n_ = 0, padded_ = 0;
  Buffer<int16_t> features_;  // [positions, f and the values of earlier groups]
  Buffer<int16_t> mixed_, outputs_;
  int64_t feature_stride_ = 0, output_stride_ = 0;
};

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

Pass::Pass(const ContextNet& net, const ContextPicture& picture, int16_t* values, Poll& poll)
    : net_(net),
      kernels_(kernels()),
      h_(picture.h),
      w_(picture.w),
      k_(picture.k),
      off_(picture.off),
      values_(values),
      poll_(poll),
      first_(net.first.layer(nullptr, kContextSlope, kContextInputLimit)) {
  OTCUDA_CHECK(h_ >= 1 && w_ >= 1 && h_ <= kMostPositions && w_ <= kMostPositions / h_,
               "the grid is " + std::to_string(h_) + " x " + std::to_string(w_) +
                   ", expected 1 to 2^26 positions");
  OTCUDA_CHECK(k_ >= 0 && k_ <= 255, "k is " + std::to_string(k_) + ", expected 0 to 255");
  const int64_t width = net.first.width();
  sums_ = Buffer<int32_t>(h_ * w_ * width);
  activations_ = Buffer<int16_t>((h_ + 2) * (w_ + 2) * width, 0);
  entries_ = Buffer<ContextEntry>(((h_ + 1) / 2) * ((w_ + 1) / 2) * net.first.pairs);
  sources_ = Buffer<const ContextEntry*>(h_ * w_ * 2);
  // The last phase is the largest, but for a grid of one position.
  const int64_t most = rounded_up(std::max<int64_t>(1, h_ * w_ / 2), kContextPositions);
  positions_ = Buffer<int32_t>(most);
  feature_stride_ =
      std::max<int64_t>(net.deep.width(), rounded_up(net.sizes.H + net.sizes.seen_by_mix(), 2));
  features_ = Buffer<int16_t>(most * feature_stride_, 0);
  mixed_ = Buffer<int16_t>(most * width);
  for (const ContextWeights& out : net.out) output_stride_ = std::max(output_stride_, out.width());
  outputs_ = Buffer<int16_t>(most * output_stride_);
  for (int q = 0; q < 9; ++q) deep_taps_[q] = (q / 3 * (w_ + 2) + q % 3) * width;
  begin();
}

// The sums of an unknown picture: the bias, and the plane of the step, which ends at the border.
void Pass::begin() {
  const int64_t width = net_.first.width(), input = net_.sizes.inputs() - 1;
  for (int64_t at = 0; at < h_ * w_; ++at) {
    std::copy(net_.first.bias.begin(), net_.first.bias.end(), sums_.data() + at * width);
  }
  const int step = context_clip(k_ - kContextStepCentre, kContextInputLimit);
  const ContextEntry entry = {int32_t(input / 2 * kContextBlock * 2),
                              input % 2 == 0 ? pack_pair(step, 0) : pack_pair(0, step)};
  for (int64_t at = 0; at < h_ * w_; ++at) {
    sources_[2 * at] = &entry;
    sources_[2 * at + 1] = &entry + 1;
  }
  add_sources(true);
  sources_.fill(nullptr);
}

void Pass::list_positions(int phase) {
  n_ = 0;
  for (int64_t i = 0; i < h_; ++i) {
    for (int64_t j = 0; j < w_; ++j) {
      if (context_phase(i, j) == phase) positions_[n_++] = int32_t(i * w_ + j);
    }
  }
  padded_ = rounded_up(n_, kContextPositions);
  for (int64_t p = n_; p < padded_; ++p) positions_[p] = positions_[0];
}

void Pass::evaluate(int g) {
  const int64_t H = net_.first.width();
  const double products = double(H * (g == 0 ? 10 * H : H) + H * output_stride_);
  const int threads = threads_for(double(n_) * products * kNanosecondsPerProduct);
  Poll poll = inner();
  parallel_for(
      padded_ / kContextPositions, kChunk / kContextPositions,
      [&](int64_t from, int64_t to) {
        evaluate_chunk(g, from * kContextPositions, to * kContextPositions);
      },
      &poll, threads);
}

void Pass::evaluate_chunk(int g, int64_t from, int64_t to) {
  const int16_t* rows[kChunk];
  const int64_t n = to - from, width = net_.first.width();
  int16_t* features = features_.data() + from * feature_stride_;
  int16_t* mixed = mixed_.data() + from * width;
  const auto point = [&](const int16_t* base, int64_t stride) {
    for (int64_t p = 0; p < n; ++p) rows[p] = base + p * stride;
  };
  if (g == 0) {
    for (int64_t p = 0; p < n; ++p) {
      const int64_t at = positions_[from + p];
      rows[p] = activations_.data() + (at / w_ * (w_ + 2) + at % w_) * width;  // its upper left
    }
    const ContextLayer deep = net_.deep.layer(deep_taps_.data(), kContextSlope, kContextInputLimit);
    kernels_.dense(deep, rows, n, features, feature_stride_);
  }
  point(features, feature_stride_);
  const ContextLayer mix = net_.mix[g].layer(&zero_tap_, kContextSlope, kContextInputLimit);
  kernels_.dense(mix, rows, n, mixed, width);
  point(mixed, width);
  const ContextLayer out = net_.out[g].layer(&zero_tap_, 0, kContextOutputLimit);
  kernels_.dense(out, rows, n, outputs_.data() + from * output_stride_, output_stride_);
}

// The values of the phase become inputs of the first layer.
void Pass::absorb() {
  sources_.fill(nullptr);
  ContextEntry* entry = entries_.data();
  for (int64_t p = 0; p < n_; ++p) {
    const int64_t at = positions_[p];
    sources_[2 * at] = entry;
    entry = list_known(at, entry);
    sources_[2 * at + 1] = entry;
  }
  add_sources(false);
}

// Pairs of inputs at one position that are not both zero: values, coarse copies, "known".
ContextEntry* Pass::list_known(int64_t at, ContextEntry* entry) {
  const int M = net_.sizes.M(), first = net_.sizes.edges[1];
  const int known = M + net_.sizes.copies * first;
  const auto input = [&](int c) {
    if (c < M) return context_clip(sixteenths(c * h_ * w_ + at), kContextInputLimit);
    if (c < known) {
      const int value = sixteenths((c - M) % first * h_ * w_ + at);
      return context_clip(context_coarse(value, 1 + (c - M) / first), kContextInputLimit);
    }
    return c == known ? kContextSeen : 0;  // the plane of the step is in the sums already
  };
  for (int c = 0; c < 2 * net_.first.pairs; c += 2) {
    const int a = input(c), b = input(c + 1);
    if (a != 0 || b != 0) *entry++ = {c * kContextBlock, pack_pair(a, b)};
  }
  return entry;
}

void Pass::add_sources(bool everywhere) {
  const double products = double(h_ * w_) * double(net_.first.width()) * kFirstTaps *
                          (everywhere ? 2.0 : 0.05 * double(net_.first.pairs));
  Poll poll = inner();
  parallel_for(
      h_, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
          for (int64_t j = 0; j < w_; ++j) add_sources_to(i, j, everywhere);
        }
      },
      &poll, threads_for(products * kNanosecondsPerProduct));
}

void Pass::add_sources_to(int64_t i, int64_t j, bool always) {
  ContextSpan spans[kFirstTaps];
  int64_t n = 0;
  for (int t = 0; t < kFirstTaps; ++t) {
    const int64_t y = i + taps_[t].i, x = j + taps_[t].j;
    if (y < 0 || y >= h_ || x < 0 || x >= w_) continue;
    const ContextEntry* const* source = sources_.data() + 2 * (y * w_ + x);
    if (source[0] == source[1]) continue;
    spans[n++] = {source[0], source[1], t * net_.first.pairs * kContextBlock * 2};
  }
  if (n == 0 && !always) return;
  const int64_t width = net_.first.width();
  kernels_.sparse(first_, spans, n, sums_.data() + (i * w_ + j) * width,
                  activations_.data() + ((i + 1) * (w_ + 2) + j + 1) * width);
}

// --- what is done with a symbol
// -------------------------------------------------------------------

struct Quantiser {
  const ContextNet& net;
  const ContextTables& tables;
  const float* u;
  bool conditional;
  double multiplier;
  ContextChoice choice;
  int64_t bits = 0;

  double cost(double residual, int symbol, int t) const {
    const double value = context_value(symbol, 0, net.centroid[t], net.mean_bits);
    const double error = residual - value / (1 << net.mean_bits);
    return error * error + multiplier * double(tables.bits_q16(symbol, t)) / 65536;
  }

  int choose(double residual, int t) const {
    const double limit = net.symbol_limit();
    const int nearest = int(std::floor(std::min(std::max(residual, -limit), limit) + 0.5));
    if (!conditional || nearest == 0) return nearest;
    int best = nearest;
    double least = cost(residual, nearest, t);
    for (const int other : {nearest > 0 ? nearest - 1 : nearest + 1, 0}) {
      const double c = cost(residual, other, t);
      if (c < least) {
        least = c;
        best = other;
      }
    }
    return best;
  }

  int code(int64_t at, int mean, int t) {
    const int symbol = choose(double(u[at]) - double(mean) / (1 << net.mean_bits), t);
    choice.symbols[at] = int16_t(symbol);
    choice.scale_index[at] = uint8_t(t);
    bits += tables.bits_q16(symbol, t);
    return symbol;
  }
  void skip(int64_t at, int t) {
    choice.symbols[at] = 0;
    choice.scale_index[at] = uint8_t(t);
  }
  void check() const {}
};

struct Meter {
  const ContextTables& tables;
  const int16_t* symbols;
  uint8_t* scale_index;
  int64_t bits = 0;

  int code(int64_t at, int, int t) {
    scale_index[at] = uint8_t(t);
    bits += tables.bits_q16(symbols[at], t);
    return symbols[at];
  }
  void skip(int64_t at, int t) { scale_index[at] = uint8_t(t); }
  void check() const {}
};

struct Encoder {
  const ContextTables& tables;
  const int16_t* symbols;
  BasicRangeEncoder<Vector<uint8_t>> range{};

  int code(int64_t at, int, int t) {
    const int symbol = symbols[at], magnitude = std::abs(symbol), R = tables.radius[t];
    const bool escaped = magnitude > R;
    const int column = escaped ? kContextEscape : context_column(symbol);
    const auto& cumulative = tables.cumulative[t];
    range.put(cumulative[column], cumulative[column + 1] - cumulative[column], tables.precision);
    if (escaped) {
      const uint64_t rest = uint64_t(magnitude - R - 1);
      const int order = context_escape_order(t);
      range.bits(symbol < 0 ? 1 : 0, 1);
      range.exp_golomb(rest >> order);
      range.bits(rest & ((uint64_t(1) << order) - 1), order);
    }
    return symbol;
  }
  void skip(int64_t, int) {}
  void check() const {}
};

struct Decoder {
  const ContextTables& tables;
  int symbol_limit;
  int16_t* symbols;
  RangeDecoder range;

  int code(int64_t at, int, int t) {
    const auto& cumulative = tables.cumulative[t];
    const uint32_t slot = range.slot(tables.precision);
    int column = 0;  // nearly always: zero comes first
    while (cumulative[column + 1] <= slot) ++column;
    range.take(cumulative[column], cumulative[column + 1] - cumulative[column], tables.precision);
    const int symbol = column == kContextEscape ? escaped(t) : context_symbol(column);
    symbols[at] = int16_t(symbol);
    return symbol;
  }

  int escaped(int t) {
    const int order = context_escape_order(t);
    const bool negative = range.bits(1) != 0;
    const uint64_t high = range.exp_golomb();
    const uint64_t low = range.bits(order);
    if (high > uint64_t(symbol_limit)) damaged();
    const int magnitude = int(high << order | low) + tables.radius[t] + 1;
    if (magnitude > symbol_limit) damaged();
    return negative ? -magnitude : magnitude;
  }

  void skip(int64_t at, int) { symbols[at] = 0; }
  void check() const {
    if (range.corrupt()) damaged();
  }

  [[noreturn]] static void damaged() {
    throw CorruptDataError(
        "the coded symbols are damaged, or were written for another grid, step or model");
  }
};

void check_symbols(const ContextNet& net, const ContextPicture& picture, const int16_t* symbols) {
  const int limit = net.symbol_limit();
  for (int c = 0; c < net.sizes.M(); ++c) {
    if (picture.off != nullptr && picture.off[c] != 0) continue;
    const int16_t* plane = symbols + c * picture.h * picture.w;
    for (int64_t at = 0; at < picture.h * picture.w; ++at) {
      OTCUDA_CHECK(std::abs(int(plane[at])) <= limit,
                   "a symbol of channel " + std::to_string(c) + " is " + std::to_string(plane[at]) +
                       ", expected " + std::to_string(-limit) + " to " + std::to_string(limit));
    }
  }
}

}  // namespace

double context_quantise(const ContextNet& net, const ContextPicture& picture, const float* u,
                        bool conditional, double multiplier, const ContextChoice& choice,
                        Poll& poll) {
  const int64_t n = net.sizes.M() * picture.h * picture.w;
  OTCUDA_CHECK(std::all_of(u, u + n, [](float v) { return std::isfinite(v); }),
               "u holds a value that is not finite");
  OTCUDA_CHECK(multiplier >= 0 && std::isfinite(multiplier),
               "multiplier is " + std::to_string(multiplier) + ", expected 0 or more");
  Quantiser quantiser{net, net.tables, u, conditional, multiplier, choice};
  Pass(net, picture, choice.values, poll).run(quantiser);
  return double(quantiser.bits) / 65536;
}

double context_measure(const ContextNet& net, const ContextPicture& picture, const int16_t* symbols,
                       int16_t* values, uint8_t* scale_index, Poll& poll) {
  check_symbols(net, picture, symbols);
  Meter meter{net.tables, symbols, scale_index};
  Pass(net, picture, values, poll).run(meter);
  return double(meter.bits) / 65536;
}

Vector<uint8_t> context_encode(const ContextNet& net, const ContextPicture& picture,
                               const int16_t* symbols, Poll& poll) {
  check_symbols(net, picture, symbols);
  Buffer<int16_t> values(net.sizes.M() * picture.h * picture.w);
  Encoder encoder{net.tables, symbols};
  Pass(net, picture, values.data(), poll).run(encoder);
  return encoder.range.finish();
}

void context_decode(const ContextNet& net, const ContextPicture& picture, const uint8_t* bytes,
                    int64_t size, int16_t* symbols, int16_t* values, Poll& poll) {
  Decoder decoder{net.tables, net.symbol_limit(), symbols,
                  RangeDecoder(bytes, static_cast<size_t>(size))};
  Pass(net, picture, values, poll).run(decoder);
  if (!decoder.range.finished()) Decoder::damaged();
}

}  // namespace otcuda::cpu
