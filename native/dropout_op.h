// SPDX-License-Identifier: Apache-2.0
// Dropout and its gradient as TensorFlow operations; part of ops.cc.

#ifndef LENET_DROPOUT_OP_H_
#define LENET_DROPOUT_OP_H_

#include <cmath>

#include "op.h"

namespace lenet {
namespace {

REGISTER_OP("Dropout")
    .Input("x: float")
    .Input("key: uint64")
    .Input("counter: uint64")
    .Attr("rate: float")
    .Output("y: float")
    .Output("keep: uint8")
    .SetShapeFn([](InferenceContext* c) {
      for (const int output : {0, 1}) c->set_output(output, c->input(0));
      return absl::OkStatus();
    });

REGISTER_OP("DropoutGradient")
    .Input("dy: float")
    .Input("keep: uint8")
    .Attr("rate: float")
    .Output("dx: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);

class DropoutOp : public OpKernel {
 public:
  explicit DropoutOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("rate", &rate_));
    // The limit is models.layers.MAX_DROPOUT: a draw has 16 bits.
    OP_REQUIRES(c, rate_ >= 0 && rate_ <= 0.999f,
                InvalidArgument("expected a dropout rate of 0 to 0.999"));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &key = c->input(1), &counter = c->input(2);
    OP_REQUIRES(c, key.NumElements() == 1 && counter.NumElements() == 2,
                InvalidArgument("expected a key of one number and a counter of two"));
    Tensor *y, *keep;
    OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(c, c->allocate_output(1, x.shape(), &keep));
    Dropout(x.NumElements(), Data(x), key.flat<tensorflow::uint64>()(0),
            reinterpret_cast<const uint64_t*>(counter.flat<tensorflow::uint64>().data()),
            std::lrint(rate_ * 65536), 1 / (1 - rate_), Data(y),
            keep->flat<uint8_t>().data());
  }

 private:
  float rate_;
};

class DropoutGradientOp : public OpKernel {
 public:
  explicit DropoutGradientOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("rate", &rate_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &keep = c->input(1);
    OP_REQUIRES(c, keep.NumElements() == dy.NumElements(),
                InvalidArgument("dy and keep differ in size"));
    Tensor* dx;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, dy.shape(), &dx));
    DropoutGradient(dy.NumElements(), Data(dy), keep.flat<uint8_t>().data(),
                    1 / (1 - rate_), Data(dx));
  }

 private:
  float rate_;
};

REGISTER_KERNEL_BUILDER(Name("Dropout").Device(DEVICE_CPU), DropoutOp);
REGISTER_KERNEL_BUILDER(Name("DropoutGradient").Device(DEVICE_CPU), DropoutGradientOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_DROPOUT_OP_H_
