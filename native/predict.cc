// SPDX-License-Identifier: Apache-2.0
// Convolution, pool, bias, SELU and batch norm, layer after layer, without gradients.
//
// A few images go through all layers before the next few: what lies between two layers
// stays in the cache. For a batch of 1,000, conv1's output alone would be 8 MB.

#include <algorithm>
#include <vector>

#include "kernels.h"

namespace lenet {
namespace {

constexpr int64_t kImagesAtOnce = 16;

}  // namespace

void ConvStack(const std::vector<ConvLayer>& layers, int64_t images, const uint8_t* pixels,
               float* y) {
  const int64_t size = layers[0].shape.image();
  int64_t largest = size;
  for (const ConvLayer& layer : layers) largest = std::max(largest, layer.shape.pooled());
  // Output of a layer and of the one before, in turns.
  std::vector<float> from(kImagesAtOnce * largest), to(kImagesAtOnce * largest);
  for (int64_t first = 0, count; first < images; first += count) {
    count = std::min(kImagesAtOnce, images - first);
    for (int64_t i = 0; i < count * size; ++i)
      from[i] = pixels[first * size + i] * (1 / 255.0f);
    for (const ConvLayer& layer : layers) {
      const ConvPoolShape& s = layer.shape;
      float* output = &layer == &layers.back() ? y + first * s.pooled() : to.data();
      ConvPool(s, count, from.data(), layer.w, output);
      SeluNorm(count * s.rows() * s.columns(), s.outputs, output, layer.norm, output);
      std::swap(from, to);
    }
  }
}

}  // namespace lenet
