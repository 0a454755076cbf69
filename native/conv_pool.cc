// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution with zero padding and a 3x3 max pool of stride 2, in one pass.
//   conv[r, q, o]  = sum over i, j, c of x[r + i, q + j, c] * w[i, j, c, o]
//   y[p, q, o]     = max over i, j of conv[2p + i, 2q + j, o]
//   where[p, q, o] = 3k + l, with k, l the i, j of that maximum, the first of equals
//
// The convolution is never stored. The pool needs three of its rows at a time:
//   row 2p      o o o o o o o        o: 16 output maps, a lane each
//   row 2p + 1  o o o o o o o
//   row 2p + 2  o o o o o o o        windows 0, 1, 2 share columns
//               |_0_|   |_2_|
//                   |_1_|
//
// Backward, only the maximum of each window gets a gradient; the zeros are not visited.

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr int kTaps = kSize * kSize;  // weights of a kernel; also places in a window

// Number of channels in a block: 16, except in the last one.
int Lanes(int channels, int block) { return std::min(kLanes, channels - block * kLanes); }

// out[t] = sum over i, j, c of x[i, t + j, c] * w[i, j, c], for columns t = 0 ... T - 1 of
// one row of the convolution. A lane is an output map; a pixel is copied to all lanes:
//
//   pixel      p0    p1      p2      p3      p4      of row i and channel c,
//   out[0] +=  left  middle  right                   times these weights
//   out[1] +=        left    middle  right
//   out[2] +=                left    middle  right
// x: padded image, from that row and column on. I: inputs, or 0 if only known at run time.
template <int T, int I>
void Tile(const float* x, int row, int inputs, const Floats* w, Floats* out) {
  const ptrdiff_t stride = I ? I : inputs;
  Floats sums[T] = {};
  for (int i = 0; i < kSize; ++i, x += row, w += kSize * stride)
    for (int c = 0; c < stride; ++c) {
      const Floats left = w[c], middle = w[stride + c], right = w[2 * stride + c];
      const float* at = x + c;
#pragma GCC unroll 16
      for (int t = 0; t < T + 2; ++t, at += stride) {
        const Floats pixel = *at - Floats{};  // copied to all lanes once, for three sums
        if (t < T) sums[t] += left * pixel;
        if (t > 0 && t <= T) sums[t - 1] += middle * pixel;
        if (t > 1) sums[t - 2] += right * pixel;
      }
    }
  for (int t = 0; t < T; ++t) out[t] = sums[t];
}

// Tiles by number of columns. The widest uses 18 of AVX-512's 32 registers.
using TileFunction = void (*)(const float*, int, int, const Floats*, Floats*);
constexpr int kWidest = 14;
template <int I>
constexpr TileFunction kTiles[kWidest + 1] = {
    nullptr,     Tile<1, I>,  Tile<2, I>,  Tile<3, I>, Tile<4, I>,
    Tile<5, I>,  Tile<6, I>,  Tile<7, I>,  Tile<8, I>, Tile<9, I>,
    Tile<10, I>, Tile<11, I>, Tile<12, I>, Tile<13, I>, Tile<14, I>};

class ConvPooler {
 public:
  // w: [3, 3, inputs, outputs].
  ConvPooler(const ConvPoolShape& shape, const float* w)
      : s(shape), tiles_(s.inputs == 1 ? kTiles<1> : kTiles<0>), row_((s.width + 2) * s.inputs),
        weights_(s.output_blocks() * kTaps * s.inputs),
        padded_((s.height + 2) * row_ + kLanes), sums_(s.used()),
        most_(kSize * s.columns()), column_(kSize * s.columns()) {
    const int taps = kTaps * s.inputs;
    for (int t = 0; t < taps; ++t)
      for (int b = 0; b < s.output_blocks(); ++b)
        weights_[b * taps + t] = Load(w + t * s.outputs + b * kLanes, Lanes(s.outputs, b));
  }

  void Forward(const float* x, float* y, uint8_t* where) {
    for (int r = 0; r < s.height; ++r)
      std::memcpy(&padded_[(r + 1) * row_ + s.inputs], x + r * s.width * s.inputs,
                  4 * s.width * s.inputs);
    for (int b = 0; b < s.output_blocks(); ++b) {
      Row(0, b);
      for (int p = 0; p < s.rows(); ++p) {
        Row(2 * p + 1, b);
        Row(2 * p + 2, b);
        Pool(p, b, y, where);
      }
    }
  }

 private:
  // Computes a row of the convolution, then its maximum and place in each window.
  void Row(int r, int b) {
    const Floats* w = &weights_[b * kTaps * s.inputs];
    const int tiles = (s.used() + kWidest - 1) / kWidest;
    for (int t = 0, done = 0; t < tiles; ++t) {
      const int width = (s.used() - done) / (tiles - t);
      tiles_[width](&padded_[r * row_ + done * s.inputs], row_, s.inputs, w, &sums_[done]);
      done += width;
    }
    Floats* most = &most_[r % kSize * s.columns()];
    Ints* column = &column_[r % kSize * s.columns()];
    for (int q = 0; q < s.columns(); ++q) {
      Floats best = sums_[2 * q];
      Ints at{};
      for (int j = 1; j < kSize; ++j) Take(sums_[2 * q + j], Ints{} + j, &best, &at);
      most[q] = best;
      column[q] = at;
    }
  }

  // Computes a row of y and where from the maxima of three rows.
  void Pool(int p, int b, float* y, uint8_t* where) {
    const int first = 2 * p % kSize * s.columns(), second = (2 * p + 1) % kSize * s.columns(),
              third = (2 * p + 2) % kSize * s.columns();
    for (int q = 0; q < s.columns(); ++q) {
      Floats best = most_[first + q];
      Ints at = column_[first + q];
      Take(most_[second + q], column_[second + q] + kSize, &best, &at);
      Take(most_[third + q], column_[third + q] + 2 * kSize, &best, &at);
      const int window = p * s.columns() + q;
      Store(y + window * s.outputs + b * kLanes, best, Lanes(s.outputs, b));
      StoreBytes(where + (window * s.output_blocks() + b) * kLanes, at);
    }
  }

  static void Take(Floats other, Ints other_at, Floats* best, Ints* at) {
    const Ints more = other > *best;
    *best = more ? other : *best;
    *at = more ? other_at : *at;
  }

  const ConvPoolShape s;
  const TileFunction* const tiles_;
  const int row_;
  Buffer<Floats> weights_;  // [output blocks, 3, 3, inputs]
  Buffer<float> padded_;    // [height + 2, width + 2, inputs]
  Buffer<Floats> sums_;     // [used], one row of the convolution
  Buffer<Floats> most_;     // [3, columns], maximum of a row within each window
  Buffer<Ints> column_;     // [3, columns], its column in the window
};

// dw[i, j, c, o] = sum over p, q of x[2p + k + i, 2q + l + j, c] * dy[p, q, o]
//
// For the first layer, whose input needs no gradient. A lane is an output map. Each lane
// picks its own 3 x 3 of a window's 5 x 5 pixels, which are kept in rows of eight:
//
//    0  1  2  3  4  .  .  .        lane o starts at 8k + l:
//    8  9 10 11 12  .  .  .        if k = 1 and l = 2, it picks
//   16 17 18 19 20  .  .  .        10 11 12
//   24 25 26 27 28  .  .  .        18 19 20
//   32 33 34 35 36  .  .  .        26 27 28
class WeightGradient {
 public:
  explicit WeightGradient(const ConvPoolShape& shape)
      : s(shape), width_(s.width + 2), plane_((s.height + 2) * width_ + kLanes),
        sums_(s.output_blocks() * kTaps * s.inputs) {}

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
      for (int b = 0; b < s.output_blocks(); ++b)
        Map(b, dy + b * kLanes, where + b * kLanes, &sums_[(b * s.inputs + c) * kTaps]);
    }
  }

  void Get(float* dw) {
    for (int b = 0; b < s.output_blocks(); ++b)
      for (int c = 0; c < s.inputs; ++c)
        for (int t = 0; t < kTaps; ++t) {
          float* to = dw + (t * s.inputs + c) * s.outputs + b * kLanes;
          const Floats sum = sums_[(b * s.inputs + c) * kTaps + t];
          Store(to, sum, Lanes(s.outputs, b));
        }
  }

 private:
  // Adds to dw[:, :, c, o] for 16 output maps and the channel in plane_.
  void Map(int b, const float* dy, const uint8_t* where, Floats* to) {
    const int lanes = Lanes(s.outputs, b);
    Floats sums[kTaps];
    for (int t = 0; t < kTaps; ++t) sums[t] = to[t];
    for (int p = 0; p < s.rows(); ++p) {
      const float* x = &plane_[2 * p * width_];
      for (int q = 0; q < s.columns(); ++q, x += 2) {
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
        dy += s.outputs;
        where += s.output_blocks() * kLanes;
      }
    }
    for (int t = 0; t < kTaps; ++t) to[t] = sums[t];
  }

  const ConvPoolShape s;
  const int width_;
  Buffer<float> plane_;  // [height + 2, width + 2]
  Buffer<Floats> sums_;  // [output blocks, inputs, 9]
};

// dw[i, j, c, o]                += x[2p + k + i, 2q + l + j, c] * dy[p, q, o]
// dx[2p + k + i, 2q + l + j, c] += w[i, j, c, o] * dy[p, q, o]
//
// A lane is an input channel; dy is the same number in all lanes. Per output map:
//   X X X . .        X: 16 input channels of x or dx, a lane each;
//   X X X . .           the first X is at position `at` of the padded image
//   X X X . .
class FullGradient {
 public:
  FullGradient(const ConvPoolShape& shape, const float* w)
      : s(shape), width_(s.width + 2), plane_((s.height + 2) * width_),
        weights_(s.outputs * s.input_blocks() * kTaps),
        sums_(s.outputs * s.input_blocks() * kTaps),
        x_(s.input_blocks() * plane_), dx_(s.input_blocks() * plane_),
        at_(s.rows() * s.columns() * s.output_blocks()),
        d_(s.rows() * s.columns() * s.output_blocks()) {
    for (int o = 0; o < s.outputs; ++o)
      for (int c = 0; c < s.inputs; ++c)
        for (int t = 0; t < kTaps; ++t)
          weights_[(o * s.input_blocks() + c / kLanes) * kTaps + t][c % kLanes] =
              w[(t * s.inputs + c) * s.outputs + o];
  }

  void Add(const float* x, const float* dy, const uint8_t* where, float* dx) {
    dx_.Clear();
    for (int b = 0; b < s.input_blocks(); ++b) {
      const int lanes = Lanes(s.inputs, b);
      Floats* to = &x_[b * plane_ + width_ + 1];
      const float* from = x + b * kLanes;
      for (int r = 0; r < s.height; ++r, to += 2)
        for (int q = 0; q < s.width; ++q, from += s.inputs) *to++ = Load(from, lanes);
    }
    Sort(dy, where);
    for (int o = 0; o < s.outputs; ++o)
      for (int b = 0; b < s.input_blocks(); ++b) Map(o, b);
    for (int b = 0; b < s.input_blocks(); ++b) {
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
              sums_[(o * s.input_blocks() + c / kLanes) * kTaps + t][c % kLanes];
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
          for (int b = 0; b < s.output_blocks(); ++b) {
            const int window = p * s.columns() + q;
            const Ints place = LoadBytes(where + (window * s.output_blocks() + b) * kLanes);
            const Ints row = place / kSize;
            *at++ = 2 * (p * width_ + q) + row * (width_ - kSize) + place;
            *d++ = Load(dy + window * s.outputs + b * kLanes, Lanes(s.outputs, b));
          }
  }

  // Adds to dw[:, :, c, o] and dx[:, :, c] for one output map and 16 input channels.
  void Map(int o, int b) {
    Floats w[kTaps], sums[kTaps];
    const int first = (o * s.input_blocks() + b) * kTaps;
    for (int t = 0; t < kTaps; ++t) w[t] = weights_[first + t], sums[t] = sums_[first + t];
    const Floats* x = &x_[b * plane_];
    Floats* dx = &dx_[b * plane_];
    const ptrdiff_t width = width_;
    const int step = s.output_blocks() * kLanes;
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
  const int width_, plane_;
  Buffer<Floats> weights_, sums_;  // [outputs, input blocks, 9]
  Buffer<Floats> x_, dx_;          // [input blocks, height + 2, width + 2]
  Buffer<Ints> at_;                // [windows, output blocks]
  Buffer<Floats> d_;               // [windows, output blocks]
};

}  // namespace

void ConvPool(const ConvPoolShape& s, int64_t images, const float* x, const float* w, float* y,
              uint8_t* where) {
  ConvPooler pooler(s, w);
  for (int64_t n = 0; n < images; ++n)
    pooler.Forward(x + n * s.image(), y + n * s.pooled(), where + n * s.places());
}

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
