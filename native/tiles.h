// SPDX-License-Identifier: Apache-2.0
// Images of conv3x3.cc in tiles: read and transformed, transformed back and written.
//
// A tile's input is 6 x 6 pixels of the image with a border of zeros:
//   0 0 0 0 0 0 .       0: border
//   0 x x x x x .       tiles overlap by two pixels
//   0 x x x x x .

#ifndef LENET_TILES_H_
#define LENET_TILES_H_

#include <memory>
#include <vector>

#include "kernels.h"
#include "vector.h"
#include "winograd.h"

namespace lenet {
namespace {

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

}  // namespace
}  // namespace lenet

#endif  // LENET_TILES_H_
