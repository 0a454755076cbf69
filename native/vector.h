// SPDX-License-Identifier: Apache-2.0
// Vectors of 16 floats, in the vector extensions of GCC and Clang.
//
//   lane     0    1    2   ...   15
//   Floats   f0   f1   f2  ...  f15      v + w, v * w, v < w: lane by lane

#ifndef LENET_VECTOR_H_
#define LENET_VECTOR_H_

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "kernels.h"

namespace lenet {

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

// An array of zeros, aligned so that each vector has its own cache line.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size) {
    const size_t bytes = (size * sizeof(T) + 64 + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }
  T* get() { return data_.get(); }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  void Clear() { std::memset(static_cast<void*>(data_.get()), 0, size_ * sizeof(T)); }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T[], Free> data_;
  size_t size_;
};

inline Floats Load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void Store(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

// Loads only the first `lanes`, 1 to 16, and does not touch the memory after them; the other
// lanes are 0.
inline Floats Load(const float* from, int lanes) {
  if (lanes == kLanes) return Load(from);
#ifdef __AVX512F__
  return _mm512_maskz_loadu_ps((1u << lanes) - 1, from);
#else
  Floats v{};
  std::memcpy(&v, from, 4 * lanes);
  return v;
#endif
}

// Stores only the first `lanes`, 1 to 16.
inline void Store(float* to, Floats v, int lanes) {
  if (lanes == kLanes) return Store(to, v);
#ifdef __AVX512F__
  _mm512_mask_storeu_ps(to, (1u << lanes) - 1, v);
#else
  std::memcpy(to, &v, 4 * lanes);
#endif
}

// first[0] ... first[7], then second[0] ... second[7].
inline Floats LoadPair(const float* first, const float* second) {
#ifdef __AVX512F__
  const __m512d low = _mm512_castpd256_pd512(_mm256_loadu_pd(reinterpret_cast<const double*>(first)));
  return _mm512_castpd_ps(
      _mm512_insertf64x4(low, _mm256_loadu_pd(reinterpret_cast<const double*>(second)), 1));
#else
  Floats v;
  std::memcpy(&v, first, 32);
  std::memcpy(reinterpret_cast<float*>(&v) + 8, second, 32);
  return v;
#endif
}

// Lane i: number index[i] of the 32 in low and high.
inline Floats Pick(Floats low, Floats high, Ints index) {
#ifdef __AVX512F__
  return _mm512_permutex2var_ps(low, reinterpret_cast<__m512i>(index), high);
#else
  const Floats both[] = {low, high};
  const float* numbers = reinterpret_cast<const float*>(both);
  Floats v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = numbers[index[lane]];
  return v;
#endif
}

inline Floats Sqrt(Floats v) {
#ifdef __AVX512F__
  return _mm512_sqrt_ps(v);
#else
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
#endif
}

// Sixteen numbers below 256, stored as bytes.
inline Ints LoadBytes(const uint8_t* from) {
#ifdef __AVX512F__
  return reinterpret_cast<Ints>(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  Ints v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = from[lane];
  return v;
#endif
}

inline void StoreBytes(uint8_t* to, Ints v) {
#ifdef __AVX512F__
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
#else
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = v[lane];
#endif
}

}  // namespace lenet

#endif  // LENET_VECTOR_H_
