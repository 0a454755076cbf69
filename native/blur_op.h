// SPDX-License-Identifier: Apache-2.0
// Blur as a TensorFlow operation; part of ops.cc.

#ifndef LENET_BLUR_OP_H_
#define LENET_BLUR_OP_H_

#include "op.h"
#include "parts.h"

namespace lenet {
namespace {

REGISTER_OP("Blur")
    .Input("x: float")
    .Input("sigma: float")
    .Output("y: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);

class BlurOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &sigma = c->input(1);
    const int64_t images = sigma.NumElements();
    OP_REQUIRES(c, x.shape() == TensorShape({images, kSide, kSide, 1}),
                InvalidArgument("expected images of 28 by 28 and a deviation for each"));
    Tensor* y;
    OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &y));
    Parts(c, images).Each([&](int64_t, int64_t first, int64_t count) {
      Blur(count, Data(x) + first * kPixels, Data(sigma) + first, Data(y) + first * kPixels);
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("Blur").Device(DEVICE_CPU), BlurOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_BLUR_OP_H_
