// SPDX-License-Identifier: Apache-2.0
// NormRelu and its gradient as TensorFlow operations; part of ops.cc.
//
// With sums over the n rows, and d as in norm_relu.cc:
//   mean = sum x / n,  inverse = 1 / sqrt(sum (x - mean)^2 / n + epsilon)
//   factor = scale * inverse
//   doffset = sum d,  dscale = sum d * (x - mean) * inverse
//   minus = doffset / n,  along = dscale * inverse / n
//
// Sums are taken of a chunk of rows at a time, and of all chunks in order: their bits do not
// depend on the number of threads.

#ifndef LENET_NORM_RELU_OP_H_
#define LENET_NORM_RELU_OP_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "parts.h"
#include "selu_norm_op.h"

namespace lenet {
namespace {

REGISTER_OP("NormRelu")
    .Input("x: float")
    .Input("scale: float")
    .Input("offset: float")
    .Attr("epsilon: float")
    .Output("y: float")
    .Output("mean: float")
    .Output("variance: float")
    .Output("inverse: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      for (const int output : {1, 2, 3}) c->set_output(output, c->input(1));
      return absl::OkStatus();
    });

REGISTER_OP("NormReluGradient")
    .Input("dy: float")
    .Input("x: float")
    .Input("mean: float")
    .Input("inverse: float")
    .Input("scale: float")
    .Input("offset: float")
    .Output("dx: float")
    .Output("dscale: float")
    .Output("doffset: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      for (const int output : {1, 2}) c->set_output(output, c->input(2));
      return absl::OkStatus();
    });

// Rows of an array [rows, channels] in chunks, which threads share.
struct Chunks {
  static constexpr int64_t kFloats = 32 << 10;  // half of a small L2 cache

  Chunks(OpKernelContext* c, int64_t rows, int64_t channels)
      : rows(rows), channels(channels), most(std::max<int64_t>(1, kFloats / channels)),
        count((rows + most - 1) / most), parts(c, count) {}

  // Calls f(chunk, position of its first number, rows) for each chunk.
  template <typename F>
  void Each(F f) const {
    parts.Each([&](int64_t, int64_t first, int64_t some) {
      for (int64_t chunk = first; chunk < first + some; ++chunk)
        f(chunk, chunk * most * channels, Rows(chunk));
    });
  }

  // Means over all rows, given those of each chunk, [count, channels].
  std::vector<double> Mean(const std::vector<float>& means) const {
    std::vector<double> mean(channels);
    for (int64_t chunk = 0; chunk < count; ++chunk)
      for (int64_t k = 0; k < channels; ++k)
        mean[k] += static_cast<double>(Rows(chunk)) / rows * means[chunk * channels + k];
    return mean;
  }

  int64_t Rows(int64_t chunk) const { return std::min(most, rows - chunk * most); }

  const int64_t rows, channels, most, count;
  const Parts parts;
};

class NormReluOp : public OpKernel {
 public:
  explicit NormReluOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &scale = c->input(1), &offset = c->input(2);
    if (!FitsChannels(c, x, 1)) return;
    Tensor *y, *mean, *variance, *inverse;
    OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(c, c->allocate_output(1, scale.shape(), &mean));
    OP_REQUIRES_OK(c, c->allocate_output(2, scale.shape(), &variance));
    OP_REQUIRES_OK(c, c->allocate_output(3, scale.shape(), &inverse));
    const int64_t channels = scale.NumElements(), rows = x.NumElements() / channels;
    const Chunks chunks(c, rows, channels);
    std::vector<float> means(chunks.count * channels), variances(means.size());
    chunks.Each([&](int64_t chunk, int64_t from, int64_t some) {
      Moments(some, channels, Data(x) + from, &means[chunk * channels],
              &variances[chunk * channels]);
    });
    const auto middle = chunks.Mean(means);
    for (int64_t i = 0; i < chunks.count * channels; ++i) {
      const double away = means[i] - middle[i % channels];
      variances[i] += away * away;
    }
    const auto spread = chunks.Mean(variances);
    std::vector<float> factor(channels);
    for (int64_t k = 0; k < channels; ++k) {
      Data(mean)[k] = middle[k];
      Data(inverse)[k] = 1 / std::sqrt(spread[k] + epsilon_);
      factor[k] = Data(scale)[k] * Data(inverse)[k];
      Data(variance)[k] = spread[k] * rows / std::max<int64_t>(1, rows - 1);
    }
    const BatchNorm norm{Data(mean), factor.data(), Data(offset)};
    chunks.Each([&](int64_t, int64_t from, int64_t some) {
      NormRelu(some, channels, Data(x) + from, norm, Data(y) + from);
    });
  }

 private:
  float epsilon_;
};

class NormReluGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &x = c->input(1), &mean = c->input(2),
                 &inverse = c->input(3), &scale = c->input(4), &offset = c->input(5);
    if (!FitsChannels(c, dy, 2)) return;
    OP_REQUIRES(c, x.NumElements() == dy.NumElements(),
                InvalidArgument("dy and x differ in size"));
    Tensor *dx, *dscale, *doffset;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0, 1}, 0, dy.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(1, mean.shape(), &dscale));
    OP_REQUIRES_OK(c, c->allocate_output(2, mean.shape(), &doffset));
    const int64_t channels = mean.NumElements(), rows = x.NumElements() / channels;
    const Chunks chunks(c, rows, channels);
    std::vector<float> factor(channels), minus(channels), along(channels);
    for (int64_t k = 0; k < channels; ++k) factor[k] = Data(scale)[k] * Data(inverse)[k];
    const BatchNorm norm{Data(mean), factor.data(), Data(offset)};
    std::vector<float> means(chunks.count * channels), products(means.size());
    chunks.Each([&](int64_t chunk, int64_t from, int64_t some) {
      NormReluMeans(some, channels, Data(dy) + from, Data(x) + from, norm,
                    &means[chunk * channels], &products[chunk * channels]);
    });
    const auto slope = chunks.Mean(means), product = chunks.Mean(products);
    for (int64_t k = 0; k < channels; ++k) {
      const double unit = Data(inverse)[k];
      minus[k] = slope[k];
      along[k] = product[k] * unit * unit;
      Data(doffset)[k] = slope[k] * rows;
      Data(dscale)[k] = product[k] * unit * rows;
    }
    chunks.Each([&](int64_t, int64_t from, int64_t some) {
      NormReluGradient(some, channels, Data(dy) + from, Data(x) + from, norm, minus.data(),
                       along.data(), Data(dx) + from);
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("NormRelu").Device(DEVICE_CPU), NormReluOp);
REGISTER_KERNEL_BUILDER(Name("NormReluGradient").Device(DEVICE_CPU), NormReluGradientOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_NORM_RELU_OP_H_
