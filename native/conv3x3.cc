// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution with zero padding, and its gradients, by Winograd's minimal filtering
// F(4x4, 3x3): Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.
//   y  = A' [(G w G') * (B' x B)] A      for each tile of 4 x 4 pixels of y,
//   dw = G' [(A dy A') * (B' x B)] G     summed over the tiles
// where * is a product at each of 36 points, summed over input channels or tiles: a matrix
// product per point. That is 36 multiplications for 16 pixels instead of 144. The gradient
// of x is the convolution of dy with w turned by 180 degrees, inputs and outputs swapped.
//
// A tile's input is 6 x 6 pixels of the image with a border of zeros:
//   0 0 0 0 0 0 .       0: border
//   0 x x x x x .       tiles overlap by two pixels
//   0 x x x x x .

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.h"
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

// Images cut into tiles, which are numbered over all images.
struct Tiles {
  Tiles(int height, int width, int channels, int64_t images)
      : height(height), width(width), channels(channels), rows((height + kTile - 1) / kTile),
        columns((width + kTile - 1) / kTile), count(images * rows * columns) {}

  // Points to S x S pixels of a tile, the first of them `border` before it; to `outside`
  // where there is none.
  template <int S, typename T>
  void Pixels(T* images, int64_t tile, int border, T* outside, T** pixels) const {
    T* first = images + Image(tile) * height * width * channels;
    const int top = Top(tile) - border, left = Left(tile) - border;
    for (int i = top; i < top + S; ++i)
      for (int j = left; j < left + S; ++j) {
        const bool inside = i >= 0 && i < height && j >= 0 && j < width;
        *pixels++ = inside ? first + (ptrdiff_t{i} * width + j) * channels : outside;
      }
  }

  // The same for S x S windows of a pool: sets the number of each, or -1.
  template <int S>
  void Windows(int64_t tile, int border, int64_t* windows) const {
    const int64_t first = Image(tile) * (height / 2) * (width / 2);
    const int top = Top(tile) / 2 - border, left = Left(tile) / 2 - border;
    for (int i = top; i < top + S; ++i)
      for (int j = left; j < left + S; ++j) {
        const bool inside = i >= 0 && i < height / 2 && j >= 0 && j < width / 2;
        *windows++ = inside ? first + i * (width / 2) + j : -1;
      }
  }

  int64_t Image(int64_t tile) const { return tile / (rows * columns); }
  int Top(int64_t tile) const { return tile % (rows * columns) / columns * kTile; }
  int Left(int64_t tile) const { return tile % columns * kTile; }

  const int height, width, channels, rows, columns;
  const int64_t count;
};

// Memory of a thread that lasts from call to call: each time anew, the system would have to
// map and clear its pages. What an earlier call has left in it is still there.
class Scratch {
 public:
  Floats* Take(int64_t count) {
    if (used_ == memory().size()) memory().emplace_back();
    return memory()[used_++].AtLeast(count);
  }

 private:
  struct Piece {
    Floats* AtLeast(int64_t count) {
      if (count > size) values.reset(new Buffer<Floats>(size = count));
      return values->get();
    }
    int64_t size = 0;
    std::unique_ptr<Buffer<Floats>> values;
  };

  static std::vector<Piece>& memory() {
    static thread_local std::vector<Piece> pieces;
    return pieces;
  }

  size_t used_ = 0;
};

// Transforms of a block of tiles: [points, tiles, channel blocks]. An odd distance between
// points, in cache lines, since with a power of two they would all displace one another.
struct Points {
  Points(int tiles, int channels, Scratch* scratch)
      : blocks(Blocks(channels)), distance((tiles * blocks) | 1),
        values(scratch->Take(kPoints * distance)) {}
  Floats* at(int point, int tile, int block) {
    return values + point * distance + ptrdiff_t{tile} * blocks + block;
  }
  const float* floats(int point, int tile, int channel) {
    return reinterpret_cast<const float*>(at(point, tile, 0)) + channel;
  }

  const int blocks;
  const ptrdiff_t distance;
  Floats* const values;
};

// Transforms the pixels of some tiles. T: Input or OutputGradient.
template <typename T>
void Gather(const Tiles& tiles, const float* images, int64_t first, int count, int border,
            const float* zeros, Points* points) {
  const float* pixels[T::kFrom * T::kFrom];
  for (int t = 0; t < count; ++t) {
    tiles.Pixels<T::kFrom>(images, first + t, border, zeros, pixels);
    for (int b = 0; b < Blocks(tiles.channels); ++b) {
      Floats* to = points->at(0, t, b);
      const ptrdiff_t distance = points->distance;
      const auto store = [&](int i, int j, Floats v) { to[(kSpan * i + j) * distance] = v; };
      const int offset = b * kLanes, lanes = Lanes(tiles.channels, b);
      if (lanes == kLanes)
        Transform<T>([&](int i, int j) { return Load(pixels[T::kFrom * i + j] + offset); },
                     store);
      else
        Transform<T>(
            [&](int i, int j) { return LoadFirst(pixels[T::kFrom * i + j] + offset, lanes); },
            store);
    }
  }
}

// The same of the gradient before a pool: dy of a window at the place of its maximum, and 0
// at the three others. A tile has 2 x 2 windows; with a border of one pixel, of 4 x 4:
//   . . . .        the outer windows' inner pixels are the border
//   . o o .
//   . o o .
//   . . . .
template <typename T>
void Gather(const Tiles& tiles, const Pooled& from, int64_t first, int count, int border,
            Points* points) {
  constexpr int kWindows = T::kFrom == kTile ? 2 : 4;
  const int padded = Padded(tiles.channels);
  int64_t windows[kWindows * kWindows];
  for (int t = 0; t < count; ++t) {
    tiles.Windows<kWindows>(first + t, border, windows);
    for (int b = 0; b < Blocks(tiles.channels); ++b) {
      const int offset = b * kLanes, lanes = Lanes(tiles.channels, b);
      Floats dy[kWindows * kWindows];
      Ints place[kWindows * kWindows];
      for (int k = 0; k < kWindows * kWindows; ++k) {
        dy[k] = Floats{}, place[k] = Ints{};
        if (windows[k] < 0) continue;
        dy[k] = Load(from.dy + windows[k] * tiles.channels + offset, lanes);
        place[k] = LoadBytes(from.where + windows[k] * padded + offset);
      }
      Floats* to = points->at(0, t, b);
      const ptrdiff_t distance = points->distance;
      Transform<T>(
          [&](int i, int j) {
            i += border, j += border;
            const int k = i / 2 * kWindows + j / 2;
            return place[k] == Ints{} + (i % 2 * 2 + j % 2) ? dy[k] : Floats{};
          },
          [&](int i, int j, Floats v) { to[(kSpan * i + j) * distance] = v; });
    }
  }
}

// Transforms the products at the points back to pixels of some tiles.
void Scatter(const Tiles& tiles, Points* points, int64_t first, int count, float* waste,
             float* images) {
  float* pixels[kTile * kTile];
  for (int t = 0; t < count; ++t) {
    tiles.Pixels<kTile>(images, first + t, 0, waste, pixels);
    for (int b = 0; b < points->blocks; ++b) {
      const Floats* from = points->at(0, t, b);
      const ptrdiff_t distance = points->distance;
      const auto load = [&](int i, int j) { return from[(kSpan * i + j) * distance]; };
      const int offset = b * kLanes, lanes = Lanes(tiles.channels, b);
      if (lanes == kLanes)
        Transform<Output>(load, [&](int i, int j, Floats v) {
          Store(pixels[kTile * i + j] + offset, v);
        });
      else
        Transform<Output>(load, [&](int i, int j, Floats v) {
          StoreFirst(pixels[kTile * i + j] + offset, v, lanes);
        });
    }
  }
}

// The same, followed by a 2 x 2 max pool.
void Scatter(const Tiles& tiles, Points* points, int64_t first, int count, float* y,
             uint8_t* where) {
  int64_t windows[4];
  for (int t = 0; t < count; ++t) {
    tiles.Windows<2>(first + t, 0, windows);
    for (int b = 0; b < points->blocks; ++b) {
      const Floats* from = points->at(0, t, b);
      const ptrdiff_t distance = points->distance;
      Floats pixels[kTile][kTile];
      Transform<Output>([&](int i, int j) { return from[(kSpan * i + j) * distance]; },
                        [&](int i, int j, Floats v) { pixels[i][j] = v; });
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        if (windows[k] < 0) continue;
        Floats best = pixels[k / 2 * 2][k % 2 * 2];
        Ints at{};
#pragma GCC unroll 3
        for (int place = 1; place < 4; ++place) {
          const Floats other = pixels[k / 2 * 2 + place / 2][k % 2 * 2 + place % 2];
          const Ints more = other > best;
          best = more ? other : best;
          at = more ? Ints{} + place : at;
        }
        Store(y + windows[k] * tiles.channels + b * kLanes, best, Lanes(tiles.channels, b));
        StoreBytes(where + windows[k] * points->blocks * kLanes + b * kLanes, at);
      }
    }
  }
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
