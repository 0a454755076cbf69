// SPDX-License-Identifier: Apache-2.0
// The transpose of a matrix, by blocks of 16 x 16 that stay in registers.

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {

void Transpose(int64_t rows, int64_t columns, const float* from, float* to) {
  const Ints first{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const Ints second = first + kLanes / 2;
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int high = std::min<int64_t>(kLanes, rows - r);
      const int wide = std::min<int64_t>(kLanes, columns - c);
      Floats a[kLanes] = {}, b[kLanes];
      for (int i = 0; i < high; ++i) a[i] = Load(from + (r + i) * columns + c, wide);
      // Four perfect shuffles of the 256 numbers turn their rows into columns.
      for (int shuffle = 0; shuffle < 4; ++shuffle) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) {
          b[2 * i] = Pick(a[i], a[i + kLanes / 2], first);
          b[2 * i + 1] = Pick(a[i], a[i + kLanes / 2], second);
        }
        std::copy(b, b + kLanes, a);
      }
      for (int i = 0; i < wide; ++i) Store(to + (c + i) * rows + r, a[i], high);
    }
}

}  // namespace lenet
