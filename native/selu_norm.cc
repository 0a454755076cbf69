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

#include <cmath>
#include <vector>

#include "channels.h"
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

class Normaliser : Channels {
 public:
  using Channels::Channels;

  // x, y, z: [rows, channels]; all others [channels]. variance: unbiased.
  void Forward(const float* x, const float* bias, const float* scale, const float* offset,
               float epsilon, float* y, float* z, float* mean, float* variance,
               float* inverse) const {
    const auto added = Repeat(bias);
    Sums sums(period);
    Each([&](int64_t i, int k, int lanes) {
      const Floats value = Selu(Load(x + i, lanes) + added[k]);
      Store(z + i, value, lanes);
      sums[k] += First(value, lanes);
    });
    Mean(sums, mean);
    const auto middle = Repeat(mean);
    Sums squares(period);
    Each([&](int64_t i, int k, int lanes) {
      const Floats away = First(Load(z + i, lanes) - middle[k], lanes);
      squares[k] += away * away;
    });
    Mean(squares, variance);
    std::vector<float> factor(channels);
    for (int c = 0; c < channels; ++c) {
      inverse[c] = 1 / std::sqrt(variance[c] + epsilon);
      factor[c] = scale[c] * inverse[c];
      variance[c] *= rows > 1 ? static_cast<float>(rows) / (rows - 1) : 1;
    }
    const auto times = Repeat(factor.data()), plus = Repeat(offset);
    Each([&](int64_t i, int k, int lanes) {
      Store(y + i, (Load(z + i, lanes) - middle[k]) * times[k] + plus[k], lanes);
    });
  }

  // x, y: [rows, channels]; y may be x.
  void Forward(const float* x, const FixedNorm& norm, float* y) const {
    std::vector<float> factor(channels), rest(channels);
    for (int c = 0; c < channels; ++c) {
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
    Sums sums(period), products(period);
    Each([&](int64_t i, int k, int lanes) {
      const Floats d = Load(dy + i, lanes);
      sums[k] += d;
      products[k] += d * (Load(z + i, lanes) - middle[k]);
    });
    Mean(sums, doffset);
    Mean(products, dscale);
    std::vector<float> factor(channels), slope(channels);
    for (int c = 0; c < channels; ++c) {
      factor[c] = scale[c] * inverse[c];
      slope[c] = dscale[c] * inverse[c] * inverse[c];
    }
    const auto times = Repeat(factor.data()), minus = Repeat(doffset),
               along = Repeat(slope.data());
    Sums biases(period);
    Each([&](int64_t i, int k, int lanes) {
      const Floats value = Load(z + i, lanes);
      const Floats dz = times[k] * (Load(dy + i, lanes) - minus[k] - (value - middle[k]) * along[k]);
      const Floats d = dz * SeluSlope(value);
      Store(dx + i, d, lanes);
      biases[k] += First(d, lanes);
    });
    Mean(biases, dbias);
    for (int c = 0; c < channels; ++c) {
      dbias[c] *= rows;
      doffset[c] *= rows;
      dscale[c] *= rows * inverse[c];
    }
  }
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
