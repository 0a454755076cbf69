// SPDX-License-Identifier: Apache-2.0
// Batch norm, then ReLU, of some rows of x [rows, channels], which fit into the cache.
//
// Forward, per channel:
//   y = max(0, (x - mean) * factor + offset)
// Backward:
//   d = dy where y > 0, else 0
//   dx = (d - minus - (x - mean) * along) * factor
// norm_relu_op.h has the statistics of all rows, and what factor, minus and along are.

#include "channels.h"
#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

// A batch norm's numbers, laid out over a period.
struct Numbers {
  Numbers(const Channels& x, const BatchNorm& norm)
      : mean(x.Repeat(norm.mean)), factor(x.Repeat(norm.factor)),
        offset(x.Repeat(norm.offset)) {}

  // Before ReLU. One expression for both directions: rounded otherwise, backward could take
  // another side of 0 than forward.
  Floats Value(Floats x, int k) const { return (x - mean[k]) * factor[k] + offset[k]; }

  const Buffer<Floats> mean, factor, offset;
};

}  // namespace

void Moments(int64_t rows, int channels, const float* x, float* mean, float* variance) {
  const Channels all(rows, channels);
  Sums sums(all.period), squares(all.period);
  all.Each([&](int64_t i, int k, int lanes) { sums[k] += Load(x + i, lanes); });
  all.Mean(sums, mean);
  const auto middle = all.Repeat(mean);
  all.Each([&](int64_t i, int k, int lanes) {
    const Floats away = First(Load(x + i, lanes) - middle[k], lanes);
    squares[k] += away * away;
  });
  all.Mean(squares, variance);
}

void NormRelu(int64_t rows, int channels, const float* x, const BatchNorm& norm, float* y) {
  const Channels all(rows, channels);
  const Numbers by(all, norm);
  const Floats zero{};
  all.Each([&](int64_t i, int k, int lanes) {
    const Floats value = by.Value(Load(x + i, lanes), k);
    Store(y + i, value > zero ? value : zero, lanes);
  });
}

void NormReluMeans(int64_t rows, int channels, const float* dy, const float* x,
                   const BatchNorm& norm, float* mean, float* product) {
  const Channels all(rows, channels);
  const Numbers by(all, norm);
  const Floats zero{};
  Sums sums(all.period), products(all.period);
  all.Each([&](int64_t i, int k, int lanes) {
    const Floats from = Load(x + i, lanes), slope = Load(dy + i, lanes);
    const Floats d = by.Value(from, k) > zero ? slope : zero;
    sums[k] += d;
    products[k] += d * (from - by.mean[k]);
  });
  all.Mean(sums, mean);
  all.Mean(products, product);
}

void NormReluGradient(int64_t rows, int channels, const float* dy, const float* x,
                      const BatchNorm& norm, const float* minus, const float* along,
                      float* dx) {
  const Channels all(rows, channels);
  const Numbers by(all, norm);
  const auto less = all.Repeat(minus), times = all.Repeat(along);
  const Floats zero{};
  all.Each([&](int64_t i, int k, int lanes) {
    const Floats from = Load(x + i, lanes), slope = Load(dy + i, lanes);
    const Floats d = by.Value(from, k) > zero ? slope : zero;
    Store(dx + i, (d - less[k] - (from - by.mean[k]) * times[k]) * by.factor[k], lanes);
  });
}

}  // namespace lenet
