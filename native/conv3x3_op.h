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
      ShapeHandle x, w;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &w));
      bool turned;
      TF_RETURN_IF_ERROR(c->GetAttr("turned", &turned));
      c->set_output(0, c->MakeShape({c->Dim(x, 0), c->Dim(x, 1), c->Dim(x, 2),
                                     c->Dim(w, turned ? 2 : 3)}));
      return absl::OkStatus();
    });

REGISTER_OP("Conv3x3Pool")
    .Input("x: float")
    .Input("w: float")
    .Output("y: float")
    .Output("where: uint8")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x, w;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &w));
      DimensionHandle rows, columns;
      TF_RETURN_IF_ERROR(c->Divide(c->Dim(x, 1), 2, true, &rows));
      TF_RETURN_IF_ERROR(c->Divide(c->Dim(x, 2), 2, true, &columns));
      const auto outputs = c->Dim(w, 3);
      const auto places =
          c->ValueKnown(outputs) ? c->MakeDim(Padded(c->Value(outputs))) : c->UnknownDim();
      c->set_output(0, c->MakeShape({c->Dim(x, 0), rows, columns, outputs}));
      c->set_output(1, c->MakeShape({c->Dim(x, 0), rows, columns, places}));
      return absl::OkStatus();
    });

REGISTER_OP("Conv3x3PoolGradient")
    .Input("dy: float")
    .Input("where: uint8")
    .Input("x: float")
    .Input("w: float")
    .Output("dx: float")
    .Output("dw: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(2));
      c->set_output(1, c->input(3));
      return absl::OkStatus();
    });

REGISTER_OP("Conv3x3WeightGradient")
    .Input("x: float")
    .Input("dy: float")
    .Output("dw: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x, dy;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &dy));
      c->set_output(0, c->MakeShape({c->MakeDim(kSize), c->MakeDim(kSize), c->Dim(x, 3),
                                     c->Dim(dy, 3)}));
      return absl::OkStatus();
    });

Conv3x3Shape ShapeOf(const Tensor& x, int64_t outputs) {
  return {x.dim_size(1), x.dim_size(2), x.dim_size(3), outputs};
}

// Returns true if w is a kernel for images x, or, if it is turned, for their gradient; else
// reports an error.
bool FitsKernel(OpKernelContext* c, const Tensor& x, const Tensor& w, bool turned) {
  const bool fits = x.dims() == 4 && w.dims() == 4 && w.dim_size(0) == kSize &&
                    w.dim_size(1) == kSize && w.NumElements() > 0 &&
                    x.dim_size(3) == w.dim_size(turned ? 3 : 2);
  if (!fits)
    c->CtxFailure(InvalidArgument("expected images and a 3 x 3 kernel for their channels, got"
                                  " the shapes ",
                                  x.shape().DebugString(), " and ", w.shape().DebugString()));
  return fits;
}

class Conv3x3Op : public OpKernel {
 public:
  explicit Conv3x3Op(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("turned", &turned_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &w = c->input(1);
    if (!FitsKernel(c, x, w, turned_)) return;
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

// Returns true if w is a kernel for images x that the pool can halve; else reports an error.
bool FitsPool(OpKernelContext* c, const Tensor& x, const Tensor& w) {
  if (!FitsKernel(c, x, w, false)) return false;
  const bool even = x.dim_size(1) % 2 == 0 && x.dim_size(2) % 2 == 0;
  if (!even)
    c->CtxFailure(InvalidArgument("expected images of an even height and width, got the"
                                  " shape ",
                                  x.shape().DebugString()));
  return even;
}

class Conv3x3PoolOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &w = c->input(1);
    if (!FitsPool(c, x, w)) return;
    const Conv3x3Shape s = ShapeOf(x, w.dim_size(3));
    const int64_t images = x.dim_size(0), windows = s.height / 2 * (s.width / 2);
    const int64_t padded = Padded(s.outputs);
    Tensor *y, *where;
    OP_REQUIRES_OK(
        c, c->allocate_output(0, {images, s.height / 2, s.width / 2, s.outputs}, &y));
    OP_REQUIRES_OK(c,
                   c->allocate_output(1, {images, s.height / 2, s.width / 2, padded}, &where));
    Parts(c, images).Each([&](int64_t, int64_t from, int64_t count) {
      Conv3x3Pool(s, count, Data(x) + from * s.from(), Data(w),
                  Data(y) + from * windows * s.outputs,
                  where->flat<uint8_t>().data() + from * windows * padded);
    });
  }
};

class Conv3x3PoolGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &where = c->input(1), &x = c->input(2), &w = c->input(3);
    if (!FitsPool(c, x, w)) return;
    const Conv3x3Shape s = ShapeOf(x, w.dim_size(3));
    const int64_t images = x.dim_size(0), windows = s.height / 2 * (s.width / 2);
    const int64_t padded = Padded(s.outputs), size = w.NumElements();
    OP_REQUIRES(c, dy.NumElements() == images * windows * s.outputs &&
                       where.NumElements() == images * windows * padded,
                InvalidArgument("dy and where do not fit x and w"));
    Tensor *dx, *dw;
    // Overwrites x if nothing else needs it: an image's gradient is written last.
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({2}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(1, w.shape(), &dw));
    const Parts parts(c, images);
    std::vector<float> sums((parts.count - 1) * size);
    parts.Each([&](int64_t part, int64_t from, int64_t count) {
      const Pooled gradient{Data(dy) + from * windows * s.outputs,
                            where.flat<uint8_t>().data() + from * windows * padded};
      Conv3x3PoolGradient(s, count, gradient, Data(x) + from * s.from(), Data(w),
                          Data(dx) + from * s.from(),
                          part ? &sums[(part - 1) * size] : Data(dw));
    });
    parts.AddTo(Data(dw), sums);
  }
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
REGISTER_KERNEL_BUILDER(Name("Conv3x3Pool").Device(DEVICE_CPU), Conv3x3PoolOp);
REGISTER_KERNEL_BUILDER(Name("Conv3x3PoolGradient").Device(DEVICE_CPU), Conv3x3PoolGradientOp);
REGISTER_KERNEL_BUILDER(Name("Conv3x3WeightGradient").Device(DEVICE_CPU),
                        Conv3x3WeightGradientOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_CONV3X3_OP_H_
