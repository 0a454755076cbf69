// SPDX-License-Identifier: Apache-2.0
// Arrays [rows, channels], a vector at a time.
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

#ifndef LENET_CHANNELS_H_
#define LENET_CHANNELS_H_

#include <cstdint>
#include <numeric>
#include <vector>

#include "vector.h"

namespace lenet {
namespace {

using Sums = Buffer<Floats>;  // a vector for each of a period

// Sets all lanes of v after the first `lanes` to 0.
inline Floats First(Floats v, int lanes) {
  if (lanes < kLanes)
    for (int lane = lanes; lane < kLanes; ++lane) v[lane] = 0;
  return v;
}

class Channels {
 public:
  Channels(int64_t rows, int channels)
      : rows(rows), channels(channels), period(Period(channels)) {}

  // Calls f(position, vector within the period, lanes) for each vector of the array.
  template <typename F>
  void Each(F f) const {
    const int64_t size = rows * channels, whole = size / kLanes * kLanes;
    for (int64_t i = 0, k = 0; i < whole; i += kLanes) {
      f(i, k, kLanes);
      if (++k == period) k = 0;
    }
    if (whole < size) f(whole, whole / kLanes % period, static_cast<int>(size - whole));
  }

  // Lays out one value per channel over a period.
  Buffer<Floats> Repeat(const float* by_channel) const {
    Buffer<Floats> repeated(period);
    float* to = reinterpret_cast<float*>(repeated.get());
    for (int i = 0; i < period * kLanes; ++i) to[i] = by_channel[i % channels];
    return repeated;
  }

  // Adds up the sums of each channel and divides by the number of rows.
  void Mean(const Sums& sums, float* mean) const {
    std::vector<double> total(channels);
    const float* from = reinterpret_cast<const float*>(&sums[0]);
    for (int i = 0; i < period * kLanes; ++i) total[i % channels] += from[i];
    for (int c = 0; c < channels; ++c) mean[c] = total[c] / rows;
  }

  const int64_t rows;
  const int channels;
  const int period;  // in vectors

 private:
  static int Period(int channels) {
    const int period = channels / std::gcd(channels, kLanes);
    // An addition waits for the one before to the same sum, so use at least eight sums.
    return period * ((7 + period) / period);
  }
};

}  // namespace
}  // namespace lenet

#endif  // LENET_CHANNELS_H_
