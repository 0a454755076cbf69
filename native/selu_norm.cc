// SPDX-License-Identifier: Apache-2.0
// Bias, SELU, then batch norm, of x [rows, channels], in few passes over memory.
//
// Forward, per channel, with sums over the n rows:
//   z = SELU(x + bias)
//   mean = sum z / n,  inverse = 1 / sqrt(sum (z - mean)^2 / n + epsilon)
//   y = (z - mean) * inverse * scale + offset
// Backward:
//   doffset = sum dy,  dscale = sum dy * (z - mean) * inverse
//   dz = scale * inverse * (dy - doffset / n - (z - mean) * inverse * dscale / n)
//   dx = dz * SELU'(x + bias),  dbias = sum dx
//
// A lane is a number in memory, whatever its channel, so no lane is idle. The channels
// of a vector repeat after lcm(lanes, channels) numbers, the period. With 16 lanes and 12
// channels:
//
//   lane        0   1   2   3   4   5   6   7   8   9  10  11  12  13  14  15
//   vector 0    0   1   2   3   4   5   6   7   8   9  10  11   0   1   2   3
//   vector 1    4   5   6   7   8   9  10  11   0   1   2   3   4   5   6   7
//   vector 2    8   9  10  11   0   1   2   3   4   5   6   7   8   9  10  11
//   vector 3    0   1   2 ...                               (channels, as vector 0)
//
// So each vector of a period has its own sums; bias, mean, ... are laid out the same way.

#include <cmath>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr float kSeluScale = 1.0507009873554805f;
constexpr float kSeluScaleAlpha = kSeluScale * 1.6732632423543772f;

// exp(x) for x <= 0, to the last bit or two: exp(x) = 2^n * exp(r), with n = x / ln 2
// rounded and r = x - n * ln 2, as in Cephes' expf (Moshier 1989).
inline Floats Exp(Floats x) {
  const Floats least = Floats{} - 87.0f;  // below this, exp(x) is denormal
  x = x < least ? least : x;
  // Adding this rounds: it leaves no bits for a fraction, and n in the low bits.
  const float round = 12582912.0f;  // 1.5 * 2^23
  const Floats shifted = x * 1.44269504088896341f + round;
  const Floats n = shifted - round;
  const Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = Floats{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) +
                                  (reinterpret_cast<Ints>(shifted) << 23));
}

// scale * x if x > 0, else scale * alpha * (exp(x) - 1).
inline Floats Selu(Floats x) {
  const Floats zero{};
  const Floats below = (Exp(x < zero ? x : zero) - 1.0f) * kSeluScaleAlpha;
  return x < zero ? below : x * kSeluScale;
}

// Derivative of SELU, given SELU's value.
inline Floats SeluSlope(Floats value) {
  return value < Floats{} ? value + kSeluScaleAlpha : Floats{} + kSeluScale;
}

class Normaliser {
 public:
  Normaliser(int64_t rows, int channels)
      : rows_(rows), channels_(channels), period_(channels / std::gcd(channels, kLanes)) {
    // An addition waits for the one before to the same sum, so use at least eight sums.
    period_ *= (7 + period_) / period_;
  }

  // x, y, z: [rows, channels]; all others [channels]. variance: unbiased.
  void Forward(const float* x, const float* bias, const float* scale, const float* offset,
               float epsilon, float* y, float* z, float* mean, float* variance,
               float* inverse) const {
    const auto added = Repeat(bias);
    Sums sums(period_);
    Each([&](int64_t i, int k, int lanes) {
      const Floats value = Selu(Load(x + i, lanes) + added[k]);
      Store(z + i, value, lanes);
      sums[k] += First(value, lanes);
    });
    Mean(sums, mean);
    const auto middle = Repeat(mean);
    Sums squares(period_);
    Each([&](int64_t i, int k, int lanes) {
      const Floats away = First(Load(z + i, lanes) - middle[k], lanes);
      squares[k] += away * away;
    });
    Mean(squares, variance);
    std::vector<float> factor(channels_);
    for (int c = 0; c < channels_; ++c) {
      inverse[c] = 1 / std::sqrt(variance[c] + epsilon);
      factor[c] = scale[c] * inverse[c];
      variance[c] *= rows_ > 1 ? static_cast<float>(rows_) / (rows_ - 1) : 1;
    }
    const auto times = Repeat(factor.data()), plus = Repeat(offset);
    Each([&](int64_t i, int k, int lanes) {
      Store(y + i, (Load(z + i, lanes) - middle[k]) * times[k] + plus[k], lanes);
    });
  }

  // x, y: [rows, channels]; y may be x.
  void Forward(const float* x, const FixedNorm& norm, float* y) const {
    std::vector<float> factor(channels_), rest(channels_);
    for (int c = 0; c < channels_; ++c) {
      factor[c] = norm.scale[c] / std::sqrt(norm.variance[c] + norm.epsilon);
      rest[c] = norm.offset[c] - norm.mean[c] * factor[c];
    }
    const auto added = Repeat(norm.bias), times = Repeat(factor.data()),
               plus = Repeat(rest.data());
    Each([&](int64_t i, int k, int lanes) {
      Store(y + i, Selu(Load(x + i, lanes) + added[k]) * times[k] + plus[k], lanes);
    });
  }

  // dy, dx: [rows, channels]; all others [channels].
  void Backward(const float* dy, const float* z, const float* mean, const float* inverse,
                const float* scale, float* dx, float* dbias, float* dscale,
                float* doffset) const {
    const auto middle = Repeat(mean);
    Sums sums(period_), products(period_);
    Each([&](int64_t i, int k, int lanes) {
      const Floats d = Load(dy + i, lanes);
      sums[k] += d;
      products[k] += d * (Load(z + i, lanes) - middle[k]);
    });
    Mean(sums, doffset);
    Mean(products, dscale);
    std::vector<float> factor(channels_), slope(channels_);
    for (int c = 0; c < channels_; ++c) {
      factor[c] = scale[c] * inverse[c];
      slope[c] = dscale[c] * inverse[c] * inverse[c];
    }
    const auto times = Repeat(factor.data()), minus = Repeat(doffset),
               along = Repeat(slope.data());
    Sums biases(period_);
    Each([&](int64_t i, int k, int lanes) {
      const Floats value = Load(z + i, lanes);
      const Floats dz = times[k] * (Load(dy + i, lanes) - minus[k] - (value - middle[k]) * along[k]);
      const Floats d = dz * SeluSlope(value);
      Store(dx + i, d, lanes);
      biases[k] += First(d, lanes);
    });
    Mean(biases, dbias);
    for (int c = 0; c < channels_; ++c) {
      dbias[c] *= rows_;
      doffset[c] *= rows_;
      dscale[c] *= rows_ * inverse[c];
    }
  }

 private:
  using Sums = Buffer<Floats>;

  // Calls f(position, vector within the period, lanes) for each vector of the array.
  template <typename F>
  void Each(F f) const {
    const int64_t size = rows_ * channels_, whole = size / kLanes * kLanes;
    for (int64_t i = 0, k = 0; i < whole; i += kLanes) {
      f(i, k, kLanes);
      if (++k == period_) k = 0;
    }
    if (whole < size) f(whole, whole / kLanes % period_, static_cast<int>(size - whole));
  }

  // Sets all lanes of v after the first `lanes` to 0.
  static Floats First(Floats v, int lanes) {
    if (lanes < kLanes)
      for (int lane = lanes; lane < kLanes; ++lane) v[lane] = 0;
    return v;
  }

  // Lays out one value per channel over a period.
  Buffer<Floats> Repeat(const float* by_channel) const {
    Buffer<Floats> repeated(period_);
    float* to = reinterpret_cast<float*>(repeated.get());
    for (int i = 0; i < period_ * kLanes; ++i) to[i] = by_channel[i % channels_];
    return repeated;
  }

  // Adds up the sums of each channel and divides by the number of rows.
  void Mean(Sums& sums, float* mean) const {
    std::vector<double> total(channels_);
    const float* from = reinterpret_cast<const float*>(sums.get());
    for (int i = 0; i < period_ * kLanes; ++i) total[i % channels_] += from[i];
    for (int c = 0; c < channels_; ++c) mean[c] = total[c] / rows_;
  }

  const int64_t rows_;
  const int channels_;
  int period_;  // in vectors
};

}  // namespace

void SeluNorm(int64_t rows, int channels, const float* x, const float* bias,
              const float* scale, const float* offset, float epsilon, float* y, float* z,
              float* mean, float* variance, float* inverse) {
  Normaliser(rows, channels)
      .Forward(x, bias, scale, offset, epsilon, y, z, mean, variance, inverse);
}

void SeluNorm(int64_t rows, int channels, const float* x, const FixedNorm& norm, float* y) {
  Normaliser(rows, channels).Forward(x, norm, y);
}

void SeluNormGradient(int64_t rows, int channels, const float* dy, const float* z,
                      const float* mean, const float* inverse, const float* scale, float* dx,
                      float* dbias, float* dscale, float* doffset) {
  Normaliser(rows, channels)
      .Backward(dy, z, mean, inverse, scale, dx, dbias, dscale, doffset);
}

}  // namespace lenet
