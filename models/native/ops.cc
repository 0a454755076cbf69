// SPDX-License-Identifier: Apache-2.0
// The kernels as TensorFlow operations. __init__.py says what they compute.

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"

namespace lenet {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;

absl::Status Pooled(InferenceContext* c) {
  tensorflow::shape_inference::ShapeHandle x, w;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &w));
  auto half = [&](int dimension) {
    const auto size = c->Dim(x, dimension);
    return c->ValueKnown(size) ? c->MakeDim((c->Value(size) - kSize) / 2 + 1)
                               : c->UnknownDim();
  };
  const auto outputs = c->Dim(w, 3);
  const auto blocks =
      c->ValueKnown(outputs) ? c->MakeDim(Blocks(c->Value(outputs))) : c->UnknownDim();
  c->set_output(0, c->MakeShape({c->Dim(x, 0), half(1), half(2), outputs}));
  c->set_output(1, c->MakeShape({c->Dim(x, 0), half(1), half(2), blocks, c->MakeDim(kLanes)}));
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

REGISTER_OP("SeluNorm")
    .Input("x: float")
    .Input("bias: float")
    .Input("scale: float")
    .Input("offset: float")
    .Attr("epsilon: float")
    .Output("y: float")
    .Output("mean: float")
    .Output("variance: float")
    .Output("z: float")
    .Output("inverse: float")
    .SetShapeFn([](InferenceContext* c) {
      for (const int output : {0, 3}) c->set_output(output, c->input(0));
      for (const int output : {1, 2, 4}) c->set_output(output, c->input(1));
      return absl::OkStatus();
    });

REGISTER_OP("SeluNormGradient")
    .Input("dy: float")
    .Input("z: float")
    .Input("mean: float")
    .Input("inverse: float")
    .Input("scale: float")
    .Output("dx: float")
    .Output("dbias: float")
    .Output("dscale: float")
    .Output("doffset: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      for (const int output : {1, 2, 3}) c->set_output(output, c->input(2));
      return absl::OkStatus();
    });

float* Data(Tensor* tensor) { return tensor->flat<float>().data(); }
const float* Data(const Tensor& tensor) { return tensor.flat<float>().data(); }

// Shapes that fit each other, or else an error and false.
bool GetShape(OpKernelContext* c, const Tensor& x, const Tensor& w, ConvPoolShape* shape) {
  const bool fits = x.dims() == 4 && w.dims() == 4 && w.dim_size(0) == kSize &&
                    w.dim_size(1) == kSize && x.dim_size(1) >= kSize &&
                    x.dim_size(2) >= kSize && x.dim_size(3) == w.dim_size(2);
  if (!fits)
    c->CtxFailure(InvalidArgument("wanted images of 3 x 3 pixels at the least and a 3 x 3"
                                  " kernel for their channels, got ", x.shape().DebugString(),
                                  " and ", w.shape().DebugString()));
  else
    *shape = {static_cast<int>(x.dim_size(1)), static_cast<int>(x.dim_size(2)),
              static_cast<int>(x.dim_size(3)), static_cast<int>(w.dim_size(3))};
  return fits;
}

// The parts of a batch, one for each thread of the operation: as many whatever else
// the machine does, so that sums come out the same each time.
struct Parts {
  Parts(OpKernelContext* c, int64_t images)
      : workers(*c->device()->tensorflow_cpu_worker_threads()), images(images),
        count(std::max<int64_t>(1, std::min<int64_t>(workers.num_threads, images))) {}

  // Calls f(part, first image, how many).
  template <typename F>
  void Each(F f) const {
    auto some = [&](int64_t first, int64_t end) {
      for (int64_t part = first; part < end; ++part) {
        const int64_t from = images * part / count;
        f(part, from, images * (part + 1) / count - from);
      }
    };
    if (count == 1)
      some(0, 1);
    else
      tensorflow::Shard(workers.num_threads, workers.workers, count, 1'000'000, some);
  }

  const tensorflow::DeviceBase::CpuWorkerThreads& workers;
  const int64_t images, count;
};

class ConvPoolOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &w = c->input(1);
    ConvPoolShape s;
    if (!GetShape(c, x, w, &s)) return;
    const int64_t images = x.dim_size(0);
    Tensor *y, *where;
    OP_REQUIRES_OK(c, c->allocate_output(0, {images, s.rows(), s.columns(), s.outputs}, &y));
    OP_REQUIRES_OK(c, c->allocate_output(
        1, {images, s.rows(), s.columns(), s.output_blocks(), kLanes}, &where));
    Parts(c, images).Each([&](int64_t, int64_t from, int64_t count) {
      ConvPool(s, count, Data(x) + from * s.image(), Data(w), Data(y) + from * s.pooled(),
               where->flat<uint8_t>().data() + from * s.places());
    });
  }
};

// With the gradient of the images or without.
template <bool kImages>
class ConvPoolGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &where = c->input(1), &x = c->input(2), &w = c->input(3);
    ConvPoolShape s;
    if (!GetShape(c, x, w, &s)) return;
    const int64_t images = x.dim_size(0);
    OP_REQUIRES(c, dy.NumElements() == images * s.pooled() &&
                       where.NumElements() == images * s.places(),
                InvalidArgument("gradient and places of other images"));
    Tensor *dx = nullptr, *dw;
    if (kImages) OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(kImages, w.shape(), &dw));
    const Parts parts(c, images);
    const int64_t size = w.NumElements();
    std::vector<float> sums(parts.count * size);
    parts.Each([&](int64_t part, int64_t from, int64_t count) {
      const float* part_dy = Data(dy) + from * s.pooled();
      const uint8_t* part_where = where.flat<uint8_t>().data() + from * s.places();
      const float* part_x = Data(x) + from * s.image();
      float* sum = &sums[part * size];
      if (kImages)
        ConvPoolGradient(s, count, part_dy, part_where, part_x, Data(w),
                         Data(dx) + from * s.image(), sum);
      else
        ConvPoolWeightGradient(s, count, part_dy, part_where, part_x, sum);
    });
    for (int64_t i = 0; i < size; ++i) {
      float sum = sums[i];
      for (int64_t part = 1; part < parts.count; ++part) sum += sums[part * size + i];
      Data(dw)[i] = sum;
    }
  }
};

bool FitsChannels(OpKernelContext* c, const Tensor& x, int first) {
  const int64_t channels = x.dims() > 0 ? x.dim_size(x.dims() - 1) : 0;
  bool fits = channels > 0;
  for (int input = first; input < c->num_inputs(); ++input)
    fits = fits && c->input(input).NumElements() == channels;
  if (!fits) c->CtxFailure(InvalidArgument("a vector does not fit ", x.shape().DebugString()));
  return fits;
}

class SeluNormOp : public OpKernel {
 public:
  explicit SeluNormOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &bias = c->input(1), &scale = c->input(2),
                 &offset = c->input(3);
    if (!FitsChannels(c, x, 1)) return;
    Tensor *y, *mean, *variance, *z, *inverse;
    OP_REQUIRES_OK(c, c->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(c, c->allocate_output(1, bias.shape(), &mean));
    OP_REQUIRES_OK(c, c->allocate_output(2, bias.shape(), &variance));
    OP_REQUIRES_OK(c, c->allocate_output(3, x.shape(), &z));
    OP_REQUIRES_OK(c, c->allocate_output(4, bias.shape(), &inverse));
    const int64_t channels = bias.NumElements();
    SeluNorm(x.NumElements() / channels, channels, Data(x), Data(bias), Data(scale),
             Data(offset), epsilon_, Data(y), Data(z), Data(mean), Data(variance),
             Data(inverse));
  }

 private:
  float epsilon_;
};

class SeluNormGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor &dy = c->input(0), &z = c->input(1), &mean = c->input(2),
                 &inverse = c->input(3), &scale = c->input(4);
    if (!FitsChannels(c, dy, 2)) return;
    OP_REQUIRES(c, z.NumElements() == dy.NumElements(),
                InvalidArgument("gradient and values of other rows"));
    Tensor *dx, *dbias, *dscale, *doffset;
    OP_REQUIRES_OK(c, c->allocate_output(0, dy.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(1, mean.shape(), &dbias));
    OP_REQUIRES_OK(c, c->allocate_output(2, mean.shape(), &dscale));
    OP_REQUIRES_OK(c, c->allocate_output(3, mean.shape(), &doffset));
    const int64_t channels = mean.NumElements();
    SeluNormGradient(dy.NumElements() / channels, channels, Data(dy), Data(z), Data(mean),
                     Data(inverse), Data(scale), Data(dx), Data(dbias), Data(dscale),
                     Data(doffset));
  }
};

REGISTER_KERNEL_BUILDER(Name("ConvPool").Device(DEVICE_CPU), ConvPoolOp);
REGISTER_KERNEL_BUILDER(Name("ConvPoolGradient").Device(DEVICE_CPU), ConvPoolGradientOp<true>);
REGISTER_KERNEL_BUILDER(Name("ConvPoolWeightGradient").Device(DEVICE_CPU),
                        ConvPoolGradientOp<false>);
REGISTER_KERNEL_BUILDER(Name("SeluNorm").Device(DEVICE_CPU), SeluNormOp);
REGISTER_KERNEL_BUILDER(Name("SeluNormGradient").Device(DEVICE_CPU), SeluNormGradientOp);

}  // namespace
}  // namespace lenet
