// SPDX-License-Identifier: Apache-2.0
// Weight decay, Adam and the weight average, in one pass over memory.
//
//   m <- m + (1 - beta1) * (g - m)
//   v <- v + (1 - beta2) * (g * g - v)
//   w <- shrink * w - rate * m / (sqrt(v) + epsilon)
//   a <- a + average * (w - a)
//
// A lane is a weight: a vector's neighbours take a vector each for g, m, v, w and a.

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {

double Update(const Rule& rule, int64_t count, const float* gradient, float* weight, float* m,
              float* v, float* average) {
  Floats squares{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const int lanes = std::min<int64_t>(kLanes, count - i);
    const Floats g = Load(gradient + i, lanes);
    Floats next_m = Load(m + i, lanes), next_v = Load(v + i, lanes), w = Load(weight + i, lanes);
    squares += g * g;
    next_m += (g - next_m) * (1 - rule.beta1);
    next_v += (g * g - next_v) * (1 - rule.beta2);
    w = w * rule.shrink - rule.rate * next_m / (Sqrt(next_v) + rule.epsilon);
    Store(m + i, next_m, lanes);
    Store(v + i, next_v, lanes);
    Store(weight + i, w, lanes);
    if (average) {
      const Floats a = Load(average + i, lanes);
      Store(average + i, a + (w - a) * rule.average, lanes);
    }
  }
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += squares[lane];
  return sum;
}

}  // namespace lenet
