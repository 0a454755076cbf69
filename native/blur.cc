// SPDX-License-Identifier: Apache-2.0
// Digits blurred by a Gaussian, each by its own; 0 beyond their border.
//
// The Gaussian is cut off where float32 would not show it. A row is blurred downwards into
// the middle of a row of zeros, then along itself.

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr float kReach = 6;  // standard deviations

// weights[d], the weight of pixels d apart. Returns how many there are.
int Weights(float sigma, float* weights) {
  float sum = -1;
  for (int d = 0; d <= kSide; ++d) {
    weights[d] = std::exp(-0.5f * (d / sigma) * (d / sigma));
    sum += 2 * weights[d];
  }
  for (int d = 0; d <= kSide; ++d) weights[d] /= sum;
  return std::min<float>(kSide, 1 + std::ceil(kReach * sigma));
}

}  // namespace

void Blur(int64_t images, const float* x, const float* sigma, float* y) {
  for (int64_t image = 0; image < images; ++image, x += kPixels, y += kPixels) {
    if (!(sigma[image] > 0)) {
      std::copy_n(x, kPixels, y);
      continue;
    }
    float weights[kSide + 1], padded[3 * kSide] = {};
    const int reach = Weights(sigma[image], weights);
    for (int row = 0; row < kSide; ++row) {
      // The last vector may compute some pixels of the one before again.
      for (int start = 0; start < kSide; start += kLanes) {
        const int column = std::min(start, kSide - kLanes);
        const float* from = x + column;
        Floats sum{};
        const int end = std::min(kSide, row + reach);
        for (int other = std::max(0, row - reach + 1); other < end; ++other)
          sum += Load(from + other * kSide) * weights[std::abs(other - row)];
        Store(padded + kSide + column, sum);
      }
      for (int start = 0; start < kSide; start += kLanes) {
        const int column = std::min(start, kSide - kLanes);
        const float* from = padded + kSide + column;
        Floats sum = Load(from) * weights[0];
        for (int d = 1; d < reach; ++d) sum += (Load(from - d) + Load(from + d)) * weights[d];
        Store(y + row * kSide + column, sum);
      }
    }
  }
}

}  // namespace lenet
