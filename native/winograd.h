// SPDX-License-Identifier: Apache-2.0
// The transforms of conv3x3.cc, which says what they are for.

#ifndef LENET_WINOGRAD_H_
#define LENET_WINOGRAD_H_

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr int kTile = 4;                  // pixels of y
constexpr int kSpan = kTile + kSize - 1;  // pixels of x, and points
constexpr int kPoints = kSpan * kSpan;

// The transforms of a line: B' d, G g, A d, and A' m and G' m. The points are 0, a, -a, b, -b
// and infinity, where a * a = 1/2 and b * b = 2: errors are less than half those of the usual
// 1, -1, 2 and -2.
constexpr float kA = 0.70710678f, kB = 1.41421356f;

struct Input {
  static constexpr int kFrom = kSpan, kTo = kSpan;
  static void Line(const Floats* d, Floats* v) {
    const Floats even = d[4] - 2 * d[2], odd = kA * (d[3] - 2 * d[1]);
    const Floats far = d[4] - 0.5f * d[2], far_odd = kB * (d[3] - 0.5f * d[1]);
    v[0] = d[0] - 2.5f * d[2] + d[4];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = far + far_odd;
    v[4] = far - far_odd;
    v[5] = d[1] - 2.5f * d[3] + d[5];
  }
};

struct Kernel {
  static constexpr int kFrom = kSize, kTo = kSpan;
  static void Line(const Floats* g, Floats* u) {
    const Floats even = (g[0] + 0.5f * g[2]) * (-2.f / 3), odd = g[1] * (-2.f / 3 * kA);
    const Floats far = (g[0] + 2 * g[2]) * (1.f / 6), far_odd = g[1] * (kB / 6);
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = far + far_odd;
    u[4] = far - far_odd;
    u[5] = g[2];
  }
};

struct OutputGradient {
  static constexpr int kFrom = kTile, kTo = kSpan;
  static void Line(const Floats* d, Floats* v) {
    const Floats even = d[0] + 0.5f * d[2], odd = kA * (d[1] + 0.5f * d[3]);
    const Floats far = d[0] + 2 * d[2], far_odd = kB * (d[1] + 2 * d[3]);
    v[0] = d[0];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = far + far_odd;
    v[4] = far - far_odd;
    v[5] = d[3];
  }
};

struct Output {
  static constexpr int kFrom = kSpan, kTo = kTile;
  static void Line(const Floats* m, Floats* y) {
    const Floats even = m[1] + m[2], odd = kA * (m[1] - m[2]);
    const Floats far = m[3] + m[4], far_odd = kB * (m[3] - m[4]);
    y[0] = m[0] + even + far;
    y[1] = odd + far_odd;
    y[2] = 0.5f * even + 2 * far;
    y[3] = 0.5f * odd + 2 * far_odd + m[5];
  }
};

struct KernelGradient {
  static constexpr int kFrom = kSpan, kTo = kSize;
  static void Line(const Floats* u, Floats* g) {
    const Floats even = (u[1] + u[2]) * (-2.f / 3), odd = (u[1] - u[2]) * (-2.f / 3 * kA);
    const Floats far = (u[3] + u[4]) * (1.f / 6), far_odd = (u[3] - u[4]) * (kB / 6);
    g[0] = u[0] + even + far;
    g[1] = odd + far_odd;
    g[2] = 0.5f * even + 2 * far + u[5];
  }
};

// Transforms columns, then rows: load(i, j) gives the input, store(i, j, v) takes the result.
template <typename T, typename Load, typename Store>
inline void Transform(Load load, Store store) {
  Floats middle[T::kTo][T::kFrom];
#pragma GCC unroll 6
  for (int j = 0; j < T::kFrom; ++j) {
    Floats from[T::kFrom], to[T::kTo];
#pragma GCC unroll 6
    for (int i = 0; i < T::kFrom; ++i) from[i] = load(i, j);
    T::Line(from, to);
#pragma GCC unroll 6
    for (int i = 0; i < T::kTo; ++i) middle[i][j] = to[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < T::kTo; ++i) {
    Floats to[T::kTo];
    T::Line(middle[i], to);
#pragma GCC unroll 6
    for (int j = 0; j < T::kTo; ++j) store(i, j, to[j]);
  }
}

}  // namespace
}  // namespace lenet

#endif  // LENET_WINOGRAD_H_
