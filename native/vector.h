// SPDX-License-Identifier: Apache-2.0
// Vectors of floats, in the vector extensions of GCC and Clang, as wide as the processor's:
// 16 floats with AVX-512, 8 with AVX2, else 4, as NEON has. With AVX-512:
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

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernels.h"

namespace lenet {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#elif defined __AVX2__
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Words = uint64_t __attribute__((vector_size(4 * kLanes)));

inline int Blocks(int channels) { return (channels + kLanes - 1) / kLanes; }

// Number of channels in a block: all lanes, except in the last one.
inline int Lanes(int channels, int block) {
  const int left = channels - block * kLanes;
  return left < kLanes ? left : kLanes;
}

// An array of zeros, aligned so that no vector lies in two cache lines.
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

// What follows differs between instruction sets:
//   LoadFirst, StoreFirst   only the first `lanes`, 1 or more; neither touches the memory
//                           after them, and the other lanes of what is loaded are 0
//   LoadBytes, StoreBytes   integers below 256, in memory a byte each
//   Multiply                products of the low halves of 64-bit lanes
//   Gather                  lane i: from[index[i]]

#ifdef __AVX512F__

inline Floats LoadFirst(const float* from, int lanes) {
  return _mm512_maskz_loadu_ps((1u << lanes) - 1, from);
}

inline void StoreFirst(float* to, Floats v, int lanes) {
  _mm512_mask_storeu_ps(to, (1u << lanes) - 1, v);
}

inline Floats Sqrt(Floats v) { return _mm512_sqrt_ps(v); }

inline Ints LoadBytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

inline void StoreBytes(uint8_t* to, Ints v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
}

inline Words Multiply(Words v, Words w) {
  return reinterpret_cast<Words>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(v), reinterpret_cast<__m512i>(w)));
}

inline Ints Gather(const int32_t* from, Ints index) {
  return reinterpret_cast<Ints>(
      _mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), from, 4));
}

// first[0] ... first[7], then second[0] ... second[7].
inline Floats LoadPair(const float* first, const float* second) {
  const auto load = [](const float* from) {
    return _mm256_loadu_pd(reinterpret_cast<const double*>(from));
  };
  return _mm512_castpd_ps(
      _mm512_insertf64x4(_mm512_castpd256_pd512(load(first)), load(second), 1));
}

// Lane i: number index[i] of the 32 in low and high.
inline Floats Pick(Floats low, Floats high, Ints index) {
  return _mm512_permutex2var_ps(low, reinterpret_cast<__m512i>(index), high);
}

#elif defined __AVX2__

inline Floats LoadFirst(const float* from, int lanes) {
  const Ints lane{0, 1, 2, 3, 4, 5, 6, 7};
  return _mm256_maskload_ps(from, reinterpret_cast<__m256i>(lane < lanes));
}

// In parts, as some processors take a dozen cycles for a masked store.
inline void StoreFirst(float* to, Floats v, int lanes) {
  const float* from = reinterpret_cast<const float*>(&v);
#pragma GCC unroll 3
  for (int part = kLanes / 2; part; part /= 2)
    if (lanes & part) {
      std::memcpy(to, from, 4 * part);
      to += part, from += part;
    }
}

inline Floats Sqrt(Floats v) { return _mm256_sqrt_ps(v); }

inline Ints LoadBytes(const uint8_t* from) {
  return reinterpret_cast<Ints>(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}

inline void StoreBytes(uint8_t* to, Ints v) {
  const __m256i all = reinterpret_cast<__m256i>(v);
  const __m128i shorts =
      _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(shorts, shorts));
}

inline Words Multiply(Words v, Words w) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(v), reinterpret_cast<__m256i>(w)));
}

inline Ints Gather(const int32_t* from, Ints index) {
  return reinterpret_cast<Ints>(
      _mm256_i32gather_epi32(from, reinterpret_cast<__m256i>(index), 4));
}

#else  // what the compiler makes of it

inline Floats LoadFirst(const float* from, int lanes) {
  Floats v{};
  std::memcpy(&v, from, 4 * lanes);
  return v;
}

inline void StoreFirst(float* to, Floats v, int lanes) { std::memcpy(to, &v, 4 * lanes); }

inline Floats Sqrt(Floats v) {
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
}

inline Ints LoadBytes(const uint8_t* from) {
  Ints v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = from[lane];
  return v;
}

inline void StoreBytes(uint8_t* to, Ints v) {
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = v[lane];
}

inline Words Multiply(Words v, Words w) { return (v & 0xFFFFFFFF) * (w & 0xFFFFFFFF); }

inline Ints Gather(const int32_t* from, Ints index) {
  Ints v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = from[index[lane]];
  return v;
}

#endif

inline Floats Load(const float* from, int lanes) {
  return lanes == kLanes ? Load(from) : LoadFirst(from, lanes);
}

inline void Store(float* to, Floats v, int lanes) {
  lanes == kLanes ? Store(to, v) : StoreFirst(to, v, lanes);
}

}  // namespace lenet

#endif  // LENET_VECTOR_H_
