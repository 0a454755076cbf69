// SPDX-License-Identifier: Apache-2.0
// ConvPool and its gradients as TensorFlow operations; part of ops.cc.

#ifndef LENET_CONV_POOL_OP_H_
#define LENET_CONV_POOL_OP_H_

#include <vector>

#include "parts.h"

namespace lenet {
namespace {

// Number of rows or columns after the pool, if the number before it is known.
DimensionHandle Half(InferenceContext* c, ShapeHandle x, int dimension) {
  const auto size = c->Dim(x, dimension);
  return c->ValueKnown(size) ? c->MakeDim((c->Value(size) - kSize) / 2 + 1)
                             : c->UnknownDim();
}

// Shapes of ConvPool's outputs: y and where.
absl::Status Pooled(InferenceContext* c) {
  ShapeHandle x, w;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &w));
  const auto outputs = c->Dim(w, 3);
  const auto places =
      c->ValueKnown(outputs) ? c->MakeDim(Padded(c->Value(outputs))) : c->UnknownDim();
  const auto rows = Half(c, x, 1), columns = Half(c, x, 2);
  c->set_output(0, c->MakeShape({c->Dim(x, 0), rows, columns, outputs}));
  c->set_output(1, c->MakeShape({c->Dim(x, 0), rows, columns, places}));
  return absl::OkStatus();
}

REGISTER_OP("ConvPool")
    .Input("x: float")
    .Input("w: float")
    .Attr("data: bool")
    .Output("y: float")
    .Output("where: uint8")
    .SetShapeFn(Pooled);

REGISTER_OP("ConvPoolWeightGradient")
    .Input("dy: float")
    .Input("where: uint8")
    .Input("x: float")
    .Input("w: float")
    .Output("dw: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(3));
      return absl::OkStatus();
    });

REGISTER_OP("ConvPoolGradient")
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

// Sets shape and returns true if w is a kernel for images x; else reports an error.
bool GetShape(OpKernelContext* c, const TensorShape& x, const Tensor& w,
              ConvPoolShape* shape) {
  const bool fits = x.dims() == 4 && w.dims() == 4 && w.dim_size(0) == kSize &&
                    w.dim_size(1) == kSize && x.dim_size(1) >= kSize &&
                    x.dim_size(2) >= kSize && x.dim_size(3) == w.dim_size(2);
  if (!fits)
    c->CtxFailure(InvalidArgument("expected images of at least 3 x 3 pixels and a 3 x 3"
                                  " kernel for their channels, got the shapes ",
                                  x.DebugString(), " and ", w.shape().DebugString()));
  else
    *shape = {static_cast<int>(x.dim_size(1)), static_cast<int>(x.dim_size(2)),
              static_cast<int>(x.dim_size(3)), static_cast<int>(w.dim_size(3))};
  return fits;
}

class ConvPoolOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &w = c->input(1);
    ConvPoolShape s;
    if (!GetShape(c, x.shape(), w, &s)) return;
    const int64_t images = x.dim_size(0);
    Tensor *y, *where;
    OP_REQUIRES_OK(c, c->allocate_output(0, {images, s.rows(), s.columns(), s.outputs}, &y));
    OP_REQUIRES_OK(c, c->allocate_output(
        1, {images, s.rows(), s.columns(), Padded(s.outputs)}, &where));
    Parts(c, images).Each([&](int64_t, int64_t from, int64_t count) {
      ConvPool(s, count, Data(x) + from * s.image(), Data(w), Data(y) + from * s.pooled(),
               where->flat<uint8_t>().data() + from * s.places());
    });
  }
};

// kImages: whether to compute the gradient of x as well as that of w.
template <bool kImages>
class ConvPoolGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &where = c->input(1), &x = c->input(2), &w = c->input(3);
    ConvPoolShape s;
    if (!GetShape(c, x.shape(), w, &s)) return;
    const int64_t images = x.dim_size(0);
    OP_REQUIRES(c, dy.NumElements() == images * s.pooled() &&
                       where.NumElements() == images * s.places(),
                InvalidArgument("dy and where do not fit x and w"));
    Tensor *dx = nullptr, *dw;
    // Overwrites x if nothing else needs it: an image's gradient is written last.
    if (kImages)
      OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({2}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(kImages, w.shape(), &dw));
    const Parts parts(c, images);
    const int64_t size = w.NumElements();
    std::vector<float> sums((parts.count - 1) * size);
    parts.Each([&](int64_t part, int64_t from, int64_t count) {
      const float* part_dy = Data(dy) + from * s.pooled();
      const uint8_t* part_where = where.flat<uint8_t>().data() + from * s.places();
      const float* part_x = Data(x) + from * s.image();
      float* sum = part ? &sums[(part - 1) * size] : Data(dw);
      if (kImages)
        ConvPoolGradient(s, count, part_dy, part_where, part_x, Data(w),
                         Data(dx) + from * s.image(), sum);
      else
        ConvPoolWeightGradient(s, count, part_dy, part_where, part_x, sum);
    });
    parts.AddTo(Data(dw), sums);
  }
};

REGISTER_KERNEL_BUILDER(Name("ConvPool").Device(DEVICE_CPU), ConvPoolOp);
REGISTER_KERNEL_BUILDER(Name("ConvPoolGradient").Device(DEVICE_CPU), ConvPoolGradientOp<true>);
REGISTER_KERNEL_BUILDER(Name("ConvPoolWeightGradient").Device(DEVICE_CPU),
                        ConvPoolGradientOp<false>);

}  // namespace
}  // namespace lenet

#endif  // LENET_CONV_POOL_OP_H_
