// SPDX-License-Identifier: Apache-2.0
// Digits read at other places, bilinearly, 0 beyond their border; augment/online.py has the
// same in TensorFlow's operations.
//
// A digit gets a frame of zeros, and each 2 x 2 pixels become one word, so that a lane needs
// one look-up for all four of its pixels:
//
//   byte of a word   0      1               2             3
//   pixel            its    right of it     below it      below right of it

#include <algorithm>

#include "kernels.h"
#include "vector.h"

namespace lenet {
namespace {

constexpr float kCentre = (kSide - 1) / 2.0f;
constexpr int kRow = 32;  // words in a row: kSide, the frame, and zeros that are never seen
constexpr int kWords = (kSide + 2) * kRow;

// Words of a digit, x [kSide, kSide]; the first is that of the frame's upper left corner.
void Pack(const uint8_t* x, int32_t* words) {
  uint8_t framed[kWords + kRow + 1 + kLanes] = {};
  for (int row = 0; row < kSide; ++row)
    std::memcpy(framed + (row + 1) * kRow + 1, x + row * kSide, kSide);
  for (int i = 0; i < kWords; i += kLanes) {
    const uint8_t* upper = framed + i;
    const Ints word = LoadBytes(upper) | LoadBytes(upper + 1) << 8 |
                      LoadBytes(upper + kRow) << 16 | LoadBytes(upper + kRow + 1) << 24;
    std::memcpy(words + i, &word, sizeof word);
  }
}

// A place that is beyond the frame, or not a number, moves onto it.
Floats OntoFrame(Floats place) {
  place = place > 0 ? place : Floats{};
  return place < kSide + 1 ? place : Floats{} + (kSide + 1);
}

Floats Byte(Ints word, int number) {
  return __builtin_convertvector((word >> 8 * number) & 255, Floats);
}

}  // namespace

void Resample(int64_t images, const uint8_t* x, const float* matrices,
              const float* displacements, uint8_t* y) {
  Floats lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  int32_t words[kWords];
  for (int64_t image = 0; image < images; ++image) {
    Pack(x + image * kPixels, words);
    const float* m = matrices + image * 9;
    const float* moved = displacements ? displacements + image * 2 * kPixels : nullptr;
    for (int row = 0; row < kSide; ++row)
      for (int start = 0; start < kSide; start += kLanes) {
        // The last vector of a row may compute some pixels of the one before again.
        const int column = std::min(start, kSide - kLanes), pixel = row * kSide + column;
        const Floats from_centre = lane + (column - kCentre);
        const float down_by = row - kCentre;
        // Counted from the frame's upper left corner.
        Floats across = from_centre * m[0] + (down_by * m[1] + m[2] + kCentre + 1);
        Floats down = from_centre * m[3] + (down_by * m[4] + m[5] + kCentre + 1);
        if (moved) {
          across += Load(moved + pixel);
          down += Load(moved + kPixels + pixel);
        }
        across = OntoFrame(across), down = OntoFrame(down);
        const Ints left = __builtin_convertvector(across, Ints);
        const Ints top = __builtin_convertvector(down, Ints);
        across -= __builtin_convertvector(left, Floats);
        down -= __builtin_convertvector(top, Floats);
        const Ints word = Gather(words, top * kRow + left);
        const Floats upper = Byte(word, 0) + across * (Byte(word, 1) - Byte(word, 0));
        const Floats lower = Byte(word, 2) + across * (Byte(word, 3) - Byte(word, 2));
        // Adding 2^23 rounds to an integer, which is then in the lowest bits.
        const Floats level = upper + down * (lower - upper) + 8388608.0f;
        StoreBytes(y + image * kPixels + pixel, reinterpret_cast<Ints>(level) & 255);
      }
  }
}

}  // namespace lenet
