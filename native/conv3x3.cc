// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution with zero padding, and its gradients, by Winograd's minimal filtering
// F(4x4, 3x3): Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.
//   y  = A' [(G w G') * (B' x B)] A      for each tile of 4 x 4 pixels of y,
//   dw = G' [(A dy A') * (B' x B)] G     summed over the tiles
// where * is a product at each of 36 points, summed over input channels or tiles: a matrix
// product per point. That is 36 multiplications for 16 pixels instead of 144. The gradient
// of x is the convolution of dy with w turned by 180 degrees, inputs and outputs swapped.

#include <algorithm>

#include "kernels.h"
#include "tiles.h"
#include "vector.h"
#include "winograd.h"

namespace lenet {
namespace {

// Rows and vectors of a block of a matrix product: as many sums as fit into registers, with
// two vectors and a number.
#if defined __AVX512F__ || defined __aarch64__
constexpr int kRows = 8;  // of 32 registers
#else
constexpr int kRows = 4;  // of 16
#endif
constexpr int kVectors = 2;

// Floats of the transforms of a block of tiles, which are to stay in the L2 cache.
constexpr int64_t kCacheFloats = 160 << 10;
constexpr int kMinTiles = 32;

constexpr int64_t RoundUp(int64_t count, int unit) { return (count + unit - 1) / unit * unit; }

// c[r, v] (+)= sum over k of a[r, k] * b[k, v], for kRows rows and V vectors. a's numbers are
// `row` and `step` apart, b's and c's rows are `b_step` and `c_step` vectors apart.
template <int V, bool kAdd>
void Block(int depth, const float* a, ptrdiff_t row, ptrdiff_t step, const Floats* b,
           ptrdiff_t b_step, Floats* c, ptrdiff_t c_step) {
  Floats sums[kRows][V] = {};
  for (int k = 0; k < depth; ++k, a += step, b += b_step) {
    Floats right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) right[v] = b[v];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Floats left = a[r * row] - Floats{};  // copied to all lanes
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      c[r * c_step + v] = kAdd ? c[r * c_step + v] + sums[r][v] : sums[r][v];
}

// Transforms w [3, 3, inputs, outputs] to [points, pairs of output blocks, inputs, pair].
void TransformKernel(const Conv3x3Shape& s, const float* w, Floats* kernel) {
  const int out = Blocks(s.outputs);
  for (int b = 0; b < out; ++b)
    for (int c = 0; c < s.inputs; ++c) {
      const int pair = b / kVectors * kVectors, width = std::min(kVectors, out - pair);
      const float* from = w + c * s.outputs + b * kLanes;
      Floats* to = kernel + pair * s.inputs + c * width + b % kVectors;
      const int lanes = Lanes(s.outputs, b);
      Transform<Kernel>(
          [&](int i, int j) {
            return Load(from + (kSize * i + j) * s.inputs * s.outputs, lanes);
          },
          [&](int i, int j, Floats v) { to[(kSpan * i + j) * s.inputs * out] = v; });
    }
}

// Returns w [3, 3, outputs, inputs], turned by 180 degrees, as [3, 3, inputs, outputs].
const float* Turn(const Conv3x3Shape& s, const float* w, Scratch* scratch) {
  float* turned = reinterpret_cast<float*>(
      scratch->Take(kTaps * s.inputs * s.outputs / kLanes + 1));
  for (int t = 0; t < kTaps; ++t)
    for (int c = 0; c < s.inputs; ++c)
      for (int o = 0; o < s.outputs; ++o)
        turned[((kTaps - 1 - t) * s.inputs + c) * s.outputs + o] =
            w[(t * s.outputs + o) * s.inputs + c];
  return turned;
}

// Number of tiles in a block; with fewer, too much time goes to loading kernel or sums.
int BlockTiles(int64_t count, const Conv3x3Shape& s) {
  const int channels = Padded(s.inputs) + Padded(s.outputs);
  const int64_t fit = kCacheFloats / kPoints / channels / kRows * kRows;
  return std::min<int64_t>(std::max<int64_t>(kMinTiles, fit), RoundUp(count, kRows));
}

// A convolution: gather(tiles, first, count, &points) transforms tiles of x, and scatter, with
// the same arguments, back to y.
template <typename Gather, typename Scatter>
void Convolve(const Conv3x3Shape& s, int64_t images, const float* w, bool turned,
              Gather gather, Scatter scatter) {
  const Tiles from(s.height, s.width, s.inputs, images),
      to(s.height, s.width, s.outputs, images);
  const int out = Blocks(s.outputs), block = BlockTiles(from.count, s);
  Scratch scratch;
  Floats* kernel = scratch.Take(kPoints * s.inputs * out);
  TransformKernel(s, turned ? Turn(s, w, &scratch) : w, kernel);
  Points v(block, s.inputs, &scratch), m(block, s.outputs, &scratch);
  for (int64_t first = 0; first < from.count; first += block) {
    const int count = std::min<int64_t>(block, from.count - first);
    gather(from, first, count, &v);
    for (int p = 0; p < kPoints; ++p)
      for (int b = 0; b < out; b += kVectors)
        for (int t = 0; t < count; t += kRows) {
          const int width = std::min(kVectors, out - b);
          const auto f = width == 1 ? Block<1, false> : Block<kVectors, false>;
          f(s.inputs, v.floats(p, t, 0), Padded(s.inputs), 1,
            kernel + (p * out + b) * s.inputs, width, m.at(p, t, b), out);
        }
    scatter(to, first, count, &m);
  }
}

// The gradient of w: gather, as above, transforms tiles of dy.
template <typename GatherGradient>
void WeightGradient(const Conv3x3Shape& s, int64_t images, const float* x, float* dw,
                    GatherGradient gather) {
  const Tiles from(s.height, s.width, s.inputs, images),
      to(s.height, s.width, s.outputs, images);
  const int out = Blocks(s.outputs), block = BlockTiles(from.count, s);
  const int64_t rows = RoundUp(s.inputs, kRows);
  Scratch scratch;
  Points v(block, RoundUp(Padded(s.inputs), kRows), &scratch), d(block, s.outputs, &scratch);
  Floats* sums = scratch.Take(kPoints * rows * out);  // [points, rows, output blocks]
  std::fill_n(sums, kPoints * rows * out, Floats{});
  const Buffer<float> outside(Padded(s.inputs));
  for (int64_t first = 0; first < from.count; first += block) {
    const int count = std::min<int64_t>(block, from.count - first);
    Gather<Input>(from, x, first, count, 1, &outside[0], &v);
    gather(to, first, count, &d);
    for (int p = 0; p < kPoints; ++p)
      for (int b = 0; b < out; b += kVectors)
        for (int c = 0; c < s.inputs; c += kRows) {
          const auto f = out - b == 1 ? Block<1, true> : Block<kVectors, true>;
          f(count, v.floats(p, 0, c), 1, v.blocks * kLanes, d.at(p, 0, b), out,
            &sums[(p * rows + c) * out + b], out);
        }
  }
  for (int b = 0; b < out; ++b)
    for (int c = 0; c < s.inputs; ++c) {
      const int lanes = Lanes(s.outputs, b);
      float* at = dw + c * s.outputs + b * kLanes;
      Transform<KernelGradient>(
          [&](int i, int j) { return sums[((kSpan * i + j) * rows + c) * out + b]; },
          [&](int i, int j, Floats g) {
            Store(at + (kSize * i + j) * s.inputs * s.outputs, g, lanes);
          });
    }
}

}  // namespace

void Conv3x3(const Conv3x3Shape& s, int64_t images, const float* x, const float* w, bool turned,
             float* y) {
  const Buffer<float> outside(Padded(s.inputs));
  Buffer<float> waste(Padded(s.outputs));
  Convolve(
      s, images, w, turned,
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Gather<Input>(tiles, x, first, count, 1, &outside[0], points);
      },
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Scatter(tiles, points, first, count, waste.get(), y);
      });
}

void Conv3x3Pool(const Conv3x3Shape& s, int64_t images, const float* x, const float* w,
                 float* y, uint8_t* where) {
  const Buffer<float> outside(Padded(s.inputs));
  Convolve(
      s, images, w, false,
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Gather<Input>(tiles, x, first, count, 1, &outside[0], points);
      },
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Scatter(tiles, points, first, count, y, where);
      });
}

void Conv3x3PoolGradient(const Conv3x3Shape& s, int64_t images, const Pooled& from,
                         const float* x, const float* w, float* dx, float* dw) {
  WeightGradient(s, images, x, dw,
                 [&](const Tiles& tiles, int64_t first, int count, Points* points) {
                   Gather<OutputGradient>(tiles, from, first, count, 0, points);
                 });
  Buffer<float> waste(Padded(s.inputs));
  Convolve(
      {s.height, s.width, s.outputs, s.inputs}, images, w, true,
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Gather<Input>(tiles, from, first, count, 1, points);
      },
      [&](const Tiles& tiles, int64_t first, int count, Points* points) {
        Scatter(tiles, points, first, count, waste.get(), dx);
      });
}

void Conv3x3WeightGradient(const Conv3x3Shape& s, int64_t images, const float* x,
                           const float* dy, float* dw) {
  const Buffer<float> outside(Padded(s.outputs));
  WeightGradient(s, images, x, dw,
                 [&](const Tiles& tiles, int64_t first, int count, Points* points) {
                   Gather<OutputGradient>(tiles, dy, first, count, 0, &outside[0], points);
                 });
}

}  // namespace lenet
