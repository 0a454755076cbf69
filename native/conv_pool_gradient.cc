// SPDX-License-Identifier: Apache-2.0
// Gradients of conv_pool.cc. Only the maximum of each window gets one; the zeros are not
// visited.

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

// dw[i, j, c, o] = sum over p, q of x[2p + k + i, 2q + l + j, c] * dy[p, q, o]
//
// For the first layer, whose input needs no gradient.
class WeightGradient {
 public:
  explicit WeightGradient(const ConvPoolShape& shape)
      : s(shape), width_(s.width + 2), padded_(Padded(s.outputs)),
        plane_((s.height + 2) * width_ + kLanes), sums_(s.inputs * kTaps * padded_) {}

  void Add(const float* x, const float* dy, const uint8_t* where) {
    for (int c = 0; c < s.inputs; ++c) {
      for (int r = 0; r < s.height; ++r) {
        const float* from = x + r * s.width * s.inputs + c;
        float* to = &plane_[(r + 1) * width_ + 1];
        if (s.inputs == 1)
          std::memcpy(to, from, 4 * s.width);
        else
          for (int q = 0; q < s.width; ++q) to[q] = from[q * s.inputs];
      }
      Maps(dy, where, &sums_[c * kTaps * padded_]);
    }
  }

  void Get(float* dw) {
    for (int c = 0; c < s.inputs; ++c)
      for (int t = 0; t < kTaps; ++t)
        std::copy_n(&sums_[(c * kTaps + t) * padded_], s.outputs,
                    dw + (t * s.inputs + c) * s.outputs);
  }

 private:
#ifdef __AVX512F__
  // A lane is an output map. Each lane picks its own 3 x 3 of a window's 5 x 5 pixels, by a
  // permutation of two registers, which only AVX-512 has. The pixels are in rows of eight:
  //
  //    0  1  2  3  4  .  .  .        lane o starts at 8k + l:
  //    8  9 10 11 12  .  .  .        if k = 1 and l = 2, it picks
  //   16 17 18 19 20  .  .  .        10 11 12
  //   24 25 26 27 28  .  .  .        18 19 20
  //   32 33 34 35 36  .  .  .        26 27 28
  void Maps(const float* dy, const uint8_t* where, float* to) {
    for (int b = 0; b < Blocks(s.outputs); ++b)
      Block(Lanes(s.outputs, b), dy + b * kLanes, where + b * kLanes, to + b * kLanes);
  }

  void Block(int lanes, const float* dy, const uint8_t* where, float* to) {
    Floats sums[kTaps];
    for (int t = 0; t < kTaps; ++t) sums[t] = Load(to + t * padded_);
    for (int p = 0; p < s.rows(); ++p) {
      const float* x = &plane_[2 * p * width_];
      for (int q = 0; q < s.columns(); ++q, x += 2, dy += s.outputs, where += padded_) {
        const Ints place = LoadBytes(where);
        const Ints at = place + 5 * (place / 3);  // 8k + l
        const Floats d = Load(dy, lanes);
        Floats rows[5];  // rows[i]: eight pixels of row i, then eight of the next
        for (int i = 0; i < 4; ++i) rows[i] = LoadPair(x + i * width_, x + (i + 1) * width_);
        rows[4] = LoadPair(x + 4 * width_, x + 4 * width_);
#pragma GCC unroll 3
        for (int i = 0; i < kSize; ++i)
#pragma GCC unroll 3
          for (int j = 0; j < kSize; ++j)
            sums[kSize * i + j] += d * Pick(rows[i], rows[i + 2], at + j);
      }
    }
    for (int t = 0; t < kTaps; ++t) Store(to + t * padded_, sums[t]);
  }
#else
  // A lane is a column of the kernel: three, and a fourth that is not used. Four output maps
  // at a time, so that additions to the same sum need not wait for each other.
  void Maps(const float* dy, const uint8_t* where, float* to) {
    int o = 0;
    for (; o + 4 <= s.outputs; o += 4) Some<4>(dy + o, where + o, to + o);
    for (; o < s.outputs; ++o) Some<1>(dy + o, where + o, to + o);
  }

  // Adds to dw[:, :, c, o] for M neighbouring output maps and the channel in plane_.
  template <int M>
  void Some(const float* dy, const uint8_t* where, float* to) {
    using Row = float __attribute__((vector_size(16)));
    const ptrdiff_t width = width_, outputs = s.outputs, padded = padded_;
    ptrdiff_t offsets[kTaps];  // of a place in a window
    for (int t = 0; t < kTaps; ++t) offsets[t] = t / kSize * width + t % kSize;
    Row sums[M][kSize] = {};
    for (int m = 0; m < M; ++m)
      for (int t = 0; t < kTaps; ++t) sums[m][t / kSize][t % kSize] = to[t * padded + m];
    for (int p = 0; p < s.rows(); ++p) {
      const float* x = &plane_[2 * p * width];
      for (int q = 0; q < s.columns(); ++q, x += 2, dy += outputs, where += padded)
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const float* from = x + offsets[where[m]];
#pragma GCC unroll 3
          for (int i = 0; i < kSize; ++i, from += width) {
            Row row;
            std::memcpy(&row, from, sizeof row);
            sums[m][i] += dy[m] * row;
          }
        }
    }
    for (int m = 0; m < M; ++m)
      for (int t = 0; t < kTaps; ++t) to[t * padded + m] = sums[m][t / kSize][t % kSize];
  }
#endif

  const ConvPoolShape s;
  const int width_, padded_;
  Buffer<float> plane_;  // [height + 2, width + 2]
  Buffer<float> sums_;   // [inputs, 9, padded outputs]
};

// dw[i, j, c, o]                += x[2p + k + i, 2q + l + j, c] * dy[p, q, o]
// dx[2p + k + i, 2q + l + j, c] += w[i, j, c, o] * dy[p, q, o]
//
// A lane is an input channel; dy is the same number in all lanes. Per output map:
//   X X X . .        X: a block of input channels of x or dx, a lane each;
//   X X X . .           the first X is at position `at` of the padded image
//   X X X . .
class FullGradient {
 public:
  FullGradient(const ConvPoolShape& shape, const float* w)
      : s(shape), width_(s.width + 2), padded_(Padded(s.outputs)),
        plane_((s.height + 2) * width_),
        weights_(s.outputs * Blocks(s.inputs) * kTaps),
        sums_(s.outputs * Blocks(s.inputs) * kTaps),
        x_(Blocks(s.inputs) * plane_), dx_(Blocks(s.inputs) * plane_),
        at_(s.rows() * s.columns() * Blocks(s.outputs)),
        d_(s.rows() * s.columns() * Blocks(s.outputs)) {
    for (int o = 0; o < s.outputs; ++o)
      for (int c = 0; c < s.inputs; ++c)
        for (int t = 0; t < kTaps; ++t)
          weights_[(o * Blocks(s.inputs) + c / kLanes) * kTaps + t][c % kLanes] =
              w[(t * s.inputs + c) * s.outputs + o];
  }

  void Add(const float* x, const float* dy, const uint8_t* where, float* dx) {
    dx_.Clear();
    for (int b = 0; b < Blocks(s.inputs); ++b) {
      const int lanes = Lanes(s.inputs, b);
      Floats* to = &x_[b * plane_ + width_ + 1];
      const float* from = x + b * kLanes;
      for (int r = 0; r < s.height; ++r, to += 2)
        for (int q = 0; q < s.width; ++q, from += s.inputs) *to++ = Load(from, lanes);
    }
    Sort(dy, where);
    for (int o = 0; o < s.outputs; ++o)
      for (int b = 0; b < Blocks(s.inputs); ++b) Map(o, b);
    for (int b = 0; b < Blocks(s.inputs); ++b) {
      const int lanes = Lanes(s.inputs, b);
      const Floats* from = &dx_[b * plane_ + width_ + 1];
      float* to = dx + b * kLanes;
      for (int r = 0; r < s.height; ++r, from += 2)
        for (int q = 0; q < s.width; ++q, to += s.inputs) Store(to, *from++, lanes);
    }
  }

  void Get(float* dw) {
    for (int o = 0; o < s.outputs; ++o)
      for (int c = 0; c < s.inputs; ++c)
        for (int t = 0; t < kTaps; ++t)
          dw[(t * s.inputs + c) * s.outputs + o] =
              sums_[(o * Blocks(s.inputs) + c / kLanes) * kTaps + t][c % kLanes];
  }

 private:
  // Lists dy of each window, and the position `at` of the first pixel under its maximum.
  void Sort(const float* dy, const uint8_t* where) {
    Ints* at = at_.get();
    Floats* d = d_.get();
    // Even columns first: neighbours share pixels of dx, so one would wait for the other.
    for (int p = 0; p < s.rows(); ++p)
      for (int odd = 0; odd < 2; ++odd)
        for (int q = odd; q < s.columns(); q += 2)
          for (int b = 0; b < Blocks(s.outputs); ++b) {
            const int window = p * s.columns() + q;
            const Ints place = LoadBytes(where + window * padded_ + b * kLanes);
            const Ints row = place / kSize;
            *at++ = 2 * (p * width_ + q) + row * (width_ - kSize) + place;
            *d++ = Load(dy + window * s.outputs + b * kLanes, Lanes(s.outputs, b));
          }
  }

  // Adds to dw[:, :, c, o] and dx[:, :, c] for one output map and a block of input channels.
  void Map(int o, int b) {
    Floats w[kTaps], sums[kTaps];
    const int first = (o * Blocks(s.inputs) + b) * kTaps;
    for (int t = 0; t < kTaps; ++t) w[t] = weights_[first + t], sums[t] = sums_[first + t];
    const Floats* x = &x_[b * plane_];
    Floats* dx = &dx_[b * plane_];
    const ptrdiff_t width = width_;
    const int step = padded_;
    const int32_t* at = reinterpret_cast<const int32_t*>(at_.get()) + o;
    const float* d = reinterpret_cast<const float*>(d_.get()) + o;
    const float* const end = d + s.rows() * s.columns() * step;
    for (; d < end; d += step, at += step) {
      const Floats* from = x + *at;
      Floats* to = dx + *at;
#pragma GCC unroll 3
      for (int i = 0; i < kSize; ++i, from += width, to += width)
#pragma GCC unroll 3
        for (int j = 0; j < kSize; ++j) {
          sums[kSize * i + j] += *d * from[j];
          to[j] += *d * w[kSize * i + j];
        }
    }
    for (int t = 0; t < kTaps; ++t) sums_[first + t] = sums[t];
  }

  const ConvPoolShape s;
  const int width_, padded_, plane_;
  Buffer<Floats> weights_, sums_;  // [outputs, input blocks, 9]
  Buffer<Floats> x_, dx_;          // [input blocks, height + 2, width + 2]
  Buffer<Ints> at_;                // [windows, output blocks]
  Buffer<Floats> d_;               // [windows, output blocks]
};

}  // namespace

void ConvPoolWeightGradient(const ConvPoolShape& s, int64_t images, const float* dy,
                            const uint8_t* where, const float* x, float* dw) {
  WeightGradient gradient(s);
  for (int64_t n = 0; n < images; ++n)
    gradient.Add(x + n * s.image(), dy + n * s.pooled(), where + n * s.places());
  gradient.Get(dw);
}

void ConvPoolGradient(const ConvPoolShape& s, int64_t images, const float* dy,
                      const uint8_t* where, const float* x, const float* w, float* dx,
                      float* dw) {
  FullGradient gradient(s, w);
  for (int64_t n = 0; n < images; ++n)
    gradient.Add(x + n * s.image(), dy + n * s.pooled(), where + n * s.places(),
                 dx + n * s.image());
  gradient.Get(dw);
}

}  // namespace lenet
