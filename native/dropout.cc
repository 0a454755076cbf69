// SPDX-License-Identifier: Apache-2.0
// y[i] = x[i] * scale if draw[i] >= least, else 0, with TensorFlow's random numbers.
//
// draw[i] is a 16-bit random number. Philox turns each 128-bit counter into four 32-bit
// numbers a, b, c, d. We run it on as many counters in a row as fit a vector, with AVX-512:
//
//   lane of 64 bits    0        1         ...  7
//   counter            n        n + 1     ...  n + 7
//   numbers            a b c d  a b c d   ...  a b c d
//   draws              0 ... 7  8 ... 15  ...  56 ... 63, the low half of a number first

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr int kCounters = kLanes / 2;
constexpr int kDraws = 8 * kCounters;  // four numbers per counter, two draws per number

// Philox 4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. In
// each of ten rounds
//   a, b, c, d = high(c * M1) ^ b ^ key0, low(c * M1), high(a * M0) ^ d ^ key1, low(a * M0)
void Philox(uint64_t key, uint64_t low, uint64_t high, uint16_t* draws) {
  const Words mask = Words{} + 0xFFFFFFFF;
  Words lane;
  for (int i = 0; i < kCounters; ++i) lane[i] = i;
  const Words at = low + lane;
  const Words above = high - reinterpret_cast<Words>(at < low);  // carry: true is -1
  // The high halves are of no account until the end.
  Words a = at, b = at >> 32, c = above, d = above >> 32;
  uint32_t key0 = key, key1 = key >> 32;
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
    const Words ab = Multiply(a, Words{} + 0xD2511F53), cd = Multiply(c, Words{} + 0xCD9E8D57);
    a = (cd >> 32) ^ b ^ key0;
    b = cd;
    c = (ab >> 32) ^ d ^ key1;
    d = ab;
  }
  const Words words[] = {(a & mask) | b << 32, (c & mask) | d << 32};
  for (int i = 0; i < kCounters; ++i)
    for (int half = 0; half < 2; ++half)
      std::memcpy(draws + 8 * i + 4 * half, reinterpret_cast<const char*>(&words[half]) + 8 * i, 8);
}

}  // namespace

void Dropout(int64_t count, const float* x, uint64_t key, const uint64_t* counter,
             uint16_t least, float scale, float* y, uint8_t* keep) {
  uint64_t low = counter[0], high = counter[1];
  for (int64_t i = 0; i < count; i += kDraws) {
    uint16_t draws[kDraws];
    Philox(key, low, high, draws);
    low += kCounters;
    high += low < kCounters;
    const int some = std::min<int64_t>(kDraws, count - i);
    for (int k = 0; k < some; ++k) keep[i + k] = draws[k] >= least;
    DropoutGradient(some, x + i, keep + i, scale, y + i);  // the same product
  }
}

void DropoutGradient(int64_t count, const float* dy, const uint8_t* keep, float scale,
                     float* dx) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Ints kept = LoadBytes(keep + i) != 0;
    Store(dx + i, kept ? Load(dy + i) * scale : Floats{});
  }
  for (; i < count; ++i) dx[i] = keep[i] ? dy[i] * scale : 0.0f;
}

}  // namespace lenet
