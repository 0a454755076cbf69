// SPDX-License-Identifier: Apache-2.0
// Conv3x3 and the gradient of its weights as TensorFlow operations; part of ops.cc.

#ifndef LENET_CONV3X3_OP_H_
#define LENET_CONV3X3_OP_H_

#include <vector>

#include "parts.h"

namespace lenet {
namespace {

REGISTER_OP("Conv3x3")
    .Input("x: float")
    .Input("w: float")
    .Attr("turned: bool")
    .Output("y: float")
    .SetShapeFn([](InferenceContext* c) {
      tensorflow::shape_inference::ShapeHandle x, w;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &w));
      bool turned;
      TF_RETURN_IF_ERROR(c->GetAttr("turned", &turned));
      c->set_output(0, c->MakeShape({c->Dim(x, 0), c->Dim(x, 1), c->Dim(x, 2),
                                     c->Dim(w, turned ? 2 : 3)}));
      return absl::OkStatus();
    });

REGISTER_OP("Conv3x3WeightGradient")
    .Input("x: float")
    .Input("dy: float")
    .Output("dw: float")
    .SetShapeFn([](InferenceContext* c) {
      tensorflow::shape_inference::ShapeHandle x, dy;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &dy));
      c->set_output(0, c->MakeShape({c->MakeDim(kSize), c->MakeDim(kSize), c->Dim(x, 3),
                                     c->Dim(dy, 3)}));
      return absl::OkStatus();
    });

Conv3x3Shape ShapeOf(const Tensor& x, int64_t outputs) {
  return {x.dim_size(1), x.dim_size(2), x.dim_size(3), outputs};
}

class Conv3x3Op : public OpKernel {
 public:
  explicit Conv3x3Op(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("turned", &turned_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &w = c->input(1);
    OP_REQUIRES(c,
                x.dims() == 4 && w.dims() == 4 && w.dim_size(0) == kSize &&
                    w.dim_size(1) == kSize && w.NumElements() > 0 &&
                    x.dim_size(3) == w.dim_size(turned_ ? 3 : 2),
                InvalidArgument("expected images and a 3 x 3 kernel for their channels, got"
                                " the shapes ",
                                x.shape().DebugString(), " and ", w.shape().DebugString()));
    const Conv3x3Shape s = ShapeOf(x, w.dim_size(turned_ ? 2 : 3));
    const int64_t images = x.dim_size(0);
    Tensor* y;
    OP_REQUIRES_OK(c, c->allocate_output(0, {images, s.height, s.width, s.outputs}, &y));
    Parts(c, images).Each([&](int64_t, int64_t from, int64_t count) {
      Conv3x3(s, count, Data(x) + from * s.from(), Data(w), turned_,
              Data(y) + from * s.to());
    });
  }

 private:
  bool turned_;
};

class Conv3x3WeightGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &dy = c->input(1);
    bool fits = x.dims() == 4 && dy.dims() == 4;
    for (int i = 0; i < 3; ++i) fits = fits && x.dim_size(i) == dy.dim_size(i);
    fits = fits && x.dim_size(3) > 0 && dy.dim_size(3) > 0;
    OP_REQUIRES(c, fits,
                InvalidArgument("x and dy have no channels, or differ in number or size of"
                                " images"));
    const Conv3x3Shape s = ShapeOf(x, dy.dim_size(3));
    Tensor* dw;
    OP_REQUIRES_OK(c, c->allocate_output(0, {kSize, kSize, s.inputs, s.outputs}, &dw));
    const Parts parts(c, x.dim_size(0));
    const int64_t size = dw->NumElements();
    std::vector<float> sums((parts.count - 1) * size);
    parts.Each([&](int64_t part, int64_t from, int64_t count) {
      Conv3x3WeightGradient(s, count, Data(x) + from * s.from(), Data(dy) + from * s.to(),
                            part ? &sums[(part - 1) * size] : Data(dw));
    });
    parts.AddTo(Data(dw), sums);
  }
};

REGISTER_KERNEL_BUILDER(Name("Conv3x3").Device(DEVICE_CPU), Conv3x3Op);
REGISTER_KERNEL_BUILDER(Name("Conv3x3WeightGradient").Device(DEVICE_CPU),
                        Conv3x3WeightGradientOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_CONV3X3_OP_H_
