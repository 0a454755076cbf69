// SPDX-License-Identifier: Apache-2.0
// The arithmetic of ops.cc. All arrays are dense and in row-major order.
//
// Channels are computed a vector at a time: a "block" is as many neighbouring channels as a
// vector has lanes, and the last block may be partly filled. Only the kernels are compiled
// for this processor, so only they know how many lanes that is: see vector.h.

#ifndef LENET_KERNELS_H_
#define LENET_KERNELS_H_

#include <cstdint>
#include <vector>

namespace lenet {

constexpr int kSize = 3;  // kernel and pool window, in pixels; the pool has stride 2
constexpr int kTaps = kSize * kSize;  // weights of a kernel; also places in a window

// Number of channels, rounded up to whole blocks.
int Padded(int channels);

// Shapes of one image: x [height, width, inputs], y [rows, columns, outputs], where
// [rows, columns, Padded(outputs)].
struct ConvPoolShape {
  int height, width, inputs, outputs;
  int rows() const { return (height - kSize) / 2 + 1; }
  int columns() const { return (width - kSize) / 2 + 1; }
  int used() const { return 2 * columns() + 1; }  // columns that the pool reads
  int64_t image() const { return int64_t{height} * width * inputs; }
  int64_t pooled() const { return int64_t{rows()} * columns() * outputs; }
  int64_t places() const { return int64_t{rows()} * columns() * Padded(outputs); }
};

// Convolution with w [3, 3, inputs, outputs] and zero padding, then max pool. where: place
// of the maximum in each window, 0 to 8; the first of equals.
void ConvPool(const ConvPoolShape& shape, int64_t images, const float* x, const float* w,
              float* y, uint8_t* where);

// The same without where.
void ConvPool(const ConvPoolShape& shape, int64_t images, const float* x, const float* w,
              float* y);

// Computes the gradient of w only.
void ConvPoolWeightGradient(const ConvPoolShape& shape, int64_t images, const float* dy,
                            const uint8_t* where, const float* x, float* dw);

// Computes the gradients of x and w.
void ConvPoolGradient(const ConvPoolShape& shape, int64_t images, const float* dy,
                      const uint8_t* where, const float* x, const float* w, float* dx,
                      float* dw);

// Shapes of one image: x [height, width, inputs], y [height, width, outputs].
struct Conv3x3Shape {
  int64_t height, width, inputs, outputs;
  int64_t from() const { return height * width * inputs; }
  int64_t to() const { return height * width * outputs; }
};

// Convolution with w [3, 3, inputs, outputs] and zero padding. turned: with that of the
// gradient of x instead, where x stands for dy: w is [3, 3, outputs, inputs], and turned by
// 180 degrees.
void Conv3x3(const Conv3x3Shape& shape, int64_t images, const float* x, const float* w,
             bool turned, float* y);

void Conv3x3WeightGradient(const Conv3x3Shape& shape, int64_t images, const float* x,
                           const float* dy, float* dw);

// The same with a 2x2 max pool of stride 2 behind it: y is [height / 2, width / 2, outputs],
// where [height / 2, width / 2, Padded(outputs)]: place of the maximum in each window, 0 to 3;
// the first of equals. height and width: even.
void Conv3x3Pool(const Conv3x3Shape& shape, int64_t images, const float* x, const float* w,
                 float* y, uint8_t* where);

// The gradient of its output.
struct Pooled {
  const float* dy;
  const uint8_t* where;
};

// dx may be x.
void Conv3x3PoolGradient(const Conv3x3Shape& shape, int64_t images, const Pooled& from,
                         const float* x, const float* w, float* dx, float* dw);

// z = SELU(x + bias), y = batch norm of z. x, y, z: [rows, channels], all others
// [channels]. variance: unbiased; inverse: 1 / sqrt(biased variance + epsilon).
void SeluNorm(int64_t rows, int channels, const float* x, const float* bias,
              const float* scale, const float* offset, float epsilon, float* y, float* z,
              float* mean, float* variance, float* inverse);

// Bias, SELU and batch norm with a mean and a variance that are given, [channels] each.
struct FixedNorm {
  const float *bias, *scale, *offset, *mean, *variance;
  float epsilon;
};

// x, y: [rows, channels]; y may be x.
void SeluNorm(int64_t rows, int channels, const float* x, const FixedNorm& norm, float* y);

void SeluNormGradient(int64_t rows, int channels, const float* dy, const float* z,
                      const float* mean, const float* inverse, const float* scale, float* dx,
                      float* dbias, float* dscale, float* doffset);

// Mean and biased variance of each channel of x [rows, channels].
void Moments(int64_t rows, int channels, const float* x, float* mean, float* variance);

// Batch norm before ReLU: (x - mean) * factor + offset, [channels] each.
struct BatchNorm {
  const float *mean, *factor, *offset;
};

// x, y: [rows, channels]; y may be x.
void NormRelu(int64_t rows, int channels, const float* x, const BatchNorm& norm, float* y);

// With d = dy where NormRelu is above 0, else 0: the means of d and of d * (x - mean).
void NormReluMeans(int64_t rows, int channels, const float* dy, const float* x,
                   const BatchNorm& norm, float* mean, float* product);

// dx = (d - minus - (x - mean) * along) * factor; dx may be dy or x.
void NormReluGradient(int64_t rows, int channels, const float* dy, const float* x,
                      const BatchNorm& norm, const float* minus, const float* along,
                      float* dx);

// y = x * scale where keep is 1, else 0; keep = draw >= least. Draws are 0 ... 65535: each
// number of Philox with this key and 128-bit counter gives two, the low half first.
void Dropout(int64_t count, const float* x, uint64_t key, const uint64_t* counter,
             uint16_t least, float scale, float* y, uint8_t* keep);

void DropoutGradient(int64_t count, const float* dy, const uint8_t* keep, float scale,
                     float* dx);

constexpr int kSide = 28, kPixels = kSide * kSide;  // of a digit

// Digits x, uint8 [images, kSide, kSide], at the places that matrices [images, 3, 3] map each
// pixel (x, y, 1) to, counted from the centre. displacements [images, 2, kSide, kSide], x and
// y, are added to these places; may be null. Bilinear, rounded, 0 beyond the border.
void Resample(int64_t images, const uint8_t* x, const float* matrices,
              const float* displacements, uint8_t* y);

// Digits x, [images, kSide, kSide], blurred by Gaussians of the standard deviations sigma
// [images], in pixels; by none where sigma is 0. 0 beyond the border.
void Blur(int64_t images, const float* x, const float* sigma, float* y);

// A layer of ConvStack: w as in ConvPool.
struct ConvLayer {
  ConvPoolShape shape;
  const float* w;
  FixedNorm norm;
};

// ConvPool, then SeluNorm, for each layer in turn. pixels: input of the first layer, in
// 255ths. y: output of the last.
void ConvStack(const std::vector<ConvLayer>& layers, int64_t images, const uint8_t* pixels,
               float* y);

// Settings of an update; update.cc has the formulas.
struct Rule {
  float rate, beta1, beta2, epsilon, shrink, average;
};

// Updates weight, m, v and average; average may be null. Returns the sum of the gradient's
// squares.
double Update(const Rule& rule, int64_t count, const float* gradient, float* weight, float* m,
              float* v, float* average);

}  // namespace lenet

#endif  // LENET_KERNELS_H_
