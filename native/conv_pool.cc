// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution with zero padding and a 3x3 max pool of stride 2, in one pass.
//   conv[r, q, o]  = sum over i, j, c of x[r + i, q + j, c] * w[i, j, c, o]
//   y[p, q, o]     = max over i, j of conv[2p + i, 2q + j, o]
//   where[p, q, o] = 3k + l, with k, l the i, j of that maximum, the first of equals
// The places are for the gradient; prediction computes y only.
//
// The convolution is never stored. The pool needs three of its rows at a time:
//   row 2p      o o o o o o o        o: a block of output maps, a lane each
//   row 2p + 1  o o o o o o o
//   row 2p + 2  o o o o o o o        windows 0, 1, 2 share columns
//               |_0_|   |_2_|
//                   |_1_|

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

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
  Floats sums[T];
  // Unrolled, or GCC calls memset here and memcpy below.
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) sums[t] = Floats{};
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
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) out[t] = sums[t];
}

// Tiles by number of columns. The widest uses 18 registers. AVX2 has only 16, but to leave two
// in memory costs less than a narrower tile, where additions to the same sum wait for each
// other.
using TileFunction = void (*)(const float*, int, int, const Floats*, Floats*);
constexpr int kWidest = 14;
template <int I>
constexpr TileFunction kTiles[kWidest + 1] = {
    nullptr,     Tile<1, I>,  Tile<2, I>,  Tile<3, I>, Tile<4, I>,
    Tile<5, I>,  Tile<6, I>,  Tile<7, I>,  Tile<8, I>, Tile<9, I>,
    Tile<10, I>, Tile<11, I>, Tile<12, I>, Tile<13, I>, Tile<14, I>};

// kPlaces: whether to find the places of the maxima, too.
template <bool kPlaces>
class ConvPooler {
 public:
  // w: [3, 3, inputs, outputs].
  ConvPooler(const ConvPoolShape& shape, const float* w)
      : s(shape), tiles_(s.inputs == 1 ? kTiles<1> : kTiles<0>), row_((s.width + 2) * s.inputs),
        weights_(Blocks(s.outputs) * kTaps * s.inputs),
        padded_((s.height + 2) * row_ + kLanes), sums_(s.used()),
        most_(kSize * s.columns()), column_(kSize * s.columns()) {
    const int taps = kTaps * s.inputs;
    for (int t = 0; t < taps; ++t)
      for (int b = 0; b < Blocks(s.outputs); ++b)
        weights_[b * taps + t] = Load(w + t * s.outputs + b * kLanes, Lanes(s.outputs, b));
  }

  void Forward(const float* x, float* y, uint8_t* where) {
    for (int r = 0; r < s.height; ++r)
      std::memcpy(&padded_[(r + 1) * row_ + s.inputs], x + r * s.width * s.inputs,
                  4 * s.width * s.inputs);
    for (int b = 0; b < Blocks(s.outputs); ++b) {
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
      if (kPlaces) column[q] = at;
    }
  }

  // Computes a row of y, and of where, from the maxima of three rows.
  void Pool(int p, int b, float* y, uint8_t* where) {
    const int first = 2 * p % kSize * s.columns(), second = (2 * p + 1) % kSize * s.columns(),
              third = (2 * p + 2) % kSize * s.columns(), padded = Padded(s.outputs);
    for (int q = 0; q < s.columns(); ++q) {
      Floats best = most_[first + q];
      Ints at = column_[first + q];
      Take(most_[second + q], column_[second + q] + kSize, &best, &at);
      Take(most_[third + q], column_[third + q] + 2 * kSize, &best, &at);
      const int window = p * s.columns() + q;
      Store(y + window * s.outputs + b * kLanes, best, Lanes(s.outputs, b));
      if (kPlaces) StoreBytes(where + window * padded + b * kLanes, at);
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

}  // namespace

int Padded(int channels) { return Blocks(channels) * kLanes; }

void ConvPool(const ConvPoolShape& s, int64_t images, const float* x, const float* w, float* y,
              uint8_t* where) {
  ConvPooler<true> pooler(s, w);
  for (int64_t n = 0; n < images; ++n)
    pooler.Forward(x + n * s.image(), y + n * s.pooled(), where + n * s.places());
}

void ConvPool(const ConvPoolShape& s, int64_t images, const float* x, const float* w,
              float* y) {
  ConvPooler<false> pooler(s, w);
  for (int64_t n = 0; n < images; ++n)
    pooler.Forward(x + n * s.image(), y + n * s.pooled(), nullptr);
}

}  // namespace lenet
