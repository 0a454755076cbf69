// SPDX-License-Identifier: Apache-2.0
// Resample as a TensorFlow operation; part of ops.cc.

#ifndef LENET_RESAMPLE_OP_H_
#define LENET_RESAMPLE_OP_H_

#include "op.h"
#include "parts.h"

namespace lenet {
namespace {

REGISTER_OP("Resample")
    .Input("x: uint8")
    .Input("matrices: float")
    .Input("displacements: float")
    .Output("y: uint8")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);

class ResampleOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &matrices = c->input(1), &displacements = c->input(2);
    OP_REQUIRES(c, x.dims() == 4, InvalidArgument("expected images of four dimensions"));
    const int64_t images = x.dim_size(0);
    OP_REQUIRES(c, x.shape() == TensorShape({images, kSide, kSide, 1}) &&
                       matrices.shape() == TensorShape({images, 3, 3}),
                InvalidArgument("expected images of 28 by 28 and a matrix for each"));
    const bool moved = displacements.NumElements() > 0;
    OP_REQUIRES(c, !moved || displacements.shape() == TensorShape({images, 2, kSide, kSide}),
                InvalidArgument("expected two displacements for each pixel, or none"));
    Tensor* y;
    OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &y));
    Parts(c, images).Each([&](int64_t, int64_t first, int64_t count) {
      Resample(count, x.flat<uint8_t>().data() + first * kPixels, Data(matrices) + first * 9,
               moved ? Data(displacements) + first * 2 * kPixels : nullptr,
               y->flat<uint8_t>().data() + first * kPixels);
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("Resample").Device(DEVICE_CPU), ResampleOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_RESAMPLE_OP_H_
