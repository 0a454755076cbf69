// SPDX-License-Identifier: Apache-2.0
// The kernels as TensorFlow operations. ops.py says what they compute.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
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

// Shapes of ConvPool's outputs: y and where.
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

REGISTER_OP("AdamUpdate")
    .Attr("weights: int >= 1")
    .Attr("averages: int >= 0")
    .Attr("decays: list(bool)")
    .Attr("beta1: float")
    .Attr("beta2: float")
    .Attr("epsilon: float")
    .Attr("threads: int >= 1")
    .Input("weight: weights * resource")
    .Input("m: weights * resource")
    .Input("v: weights * resource")
    .Input("average: averages * resource")
    .Input("gradient: weights * float")
    .Input("rate: float")
    .Input("shrink: float")
    .Input("approach: float")
    .Output("norms: float")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      int weights;
      TF_RETURN_IF_ERROR(c->GetAttr("weights", &weights));
      c->set_output(0, c->Vector(weights));
      return absl::OkStatus();
    });

float* Data(Tensor* tensor) { return tensor->flat<float>().data(); }
const float* Data(const Tensor& tensor) { return tensor.flat<float>().data(); }

// Fills shape if x and w fit each other; else reports an error and returns false.
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

// Splits a batch into parts, one per thread. The number of parts does not depend on what
// else the machine does, so that sums have the same bits each time.
struct Parts {
  Parts(OpKernelContext* c, int64_t images)
      : workers(*c->device()->tensorflow_cpu_worker_threads()), images(images),
        count(std::max<int64_t>(1, std::min<int64_t>(workers.num_threads, images))) {}

  // Calls f(part, first image, number of images).
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

// kImages: whether the images' gradient is wanted, too.
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
    // Overwrites x if nobody else needs it: an image's gradient is written last.
    if (kImages)
      OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({2}, 0, x.shape(), &dx));
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

// Whether inputs from `first` on have one number per channel of x; else reports an error.
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
    // Overwrites x if nobody else needs it: that memory is in the cache.
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 3, x.shape(), &z));
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
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, dy.shape(), &dx));
    OP_REQUIRES_OK(c, c->allocate_output(1, mean.shape(), &dbias));
    OP_REQUIRES_OK(c, c->allocate_output(2, mean.shape(), &dscale));
    OP_REQUIRES_OK(c, c->allocate_output(3, mean.shape(), &doffset));
    const int64_t channels = mean.NumElements();
    SeluNormGradient(dy.NumElements() / channels, channels, Data(dy), Data(z), Data(mean),
                     Data(inverse), Data(scale), Data(dx), Data(dbias), Data(dscale),
                     Data(doffset));
  }
};

class DropoutOp : public OpKernel {
 public:
  explicit DropoutOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("rate", &rate_));
    // models.layers.MAX_DROPOUT: draws have 16 bits.
    OP_REQUIRES(c, rate_ >= 0 && rate_ <= 0.999f,
                InvalidArgument("a dropout rate of 0 to 0.999 wanted"));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &key = c->input(1), &counter = c->input(2);
    OP_REQUIRES(c, key.NumElements() == 1 && counter.NumElements() == 2,
                InvalidArgument("a key of one number and a counter of two wanted"));
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
                InvalidArgument("gradient and mask of other shapes"));
    Tensor* dx;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, dy.shape(), &dx));
    DropoutGradient(dy.NumElements(), Data(dy), keep.flat<uint8_t>().data(),
                    1 / (1 - rate_), Data(dx));
  }

 private:
  float rate_;
};

// Calls f(0) ... f(count - 1) on this thread and others. Waits for calls that have begun,
// but not for threads that have not. threads: how many may share the work; more than the
// operation's own if those of other operations are idle.
void Share(OpKernelContext* c, int threads, int count, std::function<void(int)> f) {
  struct State {
    std::function<void(int)> f;
    int count;
    std::atomic<int> next{0}, done{0};
    void Work() {
      for (int i; (i = next++) < count; ++done) f(i);
    }
  };
  auto state = std::make_shared<State>();
  state->f = std::move(f);
  state->count = count;
  const auto& pool = *c->device()->tensorflow_cpu_worker_threads();
  const int most = std::min(std::max(threads, pool.num_threads), count);
  for (int thread = 1; thread < most; ++thread)
    pool.workers->Schedule([state] { state->Work(); });
  state->Work();
  while (state->done < count) std::this_thread::yield();
}

// Weight decay, Adam and the weight average, for all weights of a network.
class AdamUpdateOp : public OpKernel {
 public:
  explicit AdamUpdateOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("weights", &weights_));
    OP_REQUIRES_OK(c, c->GetAttr("averages", &averages_));
    OP_REQUIRES_OK(c, c->GetAttr("decays", &decays_));
    OP_REQUIRES_OK(c, c->GetAttr("beta1", &rule_.beta1));
    OP_REQUIRES_OK(c, c->GetAttr("beta2", &rule_.beta2));
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &rule_.epsilon));
    OP_REQUIRES_OK(c, c->GetAttr("threads", &threads_));
    OP_REQUIRES(c, static_cast<int>(decays_.size()) == weights_ &&
                       (averages_ == 0 || averages_ == weights_),
                InvalidArgument("as many of each wanted as there are weights"));
  }

  void Compute(OpKernelContext* c) override {
    const int gradients = 3 * weights_ + averages_;
    Rule rule = rule_;
    rule.rate = c->input(gradients + weights_).scalar<float>()();
    const float shrink = c->input(gradients + weights_ + 1).scalar<float>()();
    rule.average = c->input(gradients + weights_ + 2).scalar<float>()();
    std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>> held;
    std::vector<Chunk> chunks;
    for (int i = 0; i < weights_; ++i) {
      const Tensor& gradient = c->input(gradients + i);
      Chunk all{i, gradient.NumElements(), Data(gradient), {}};
      for (int kind = 0; kind < (averages_ ? 4 : 3); ++kind) {
        all.variables[kind] = Writable(c, kind * weights_ + i, gradient.shape(), &held);
        if (!c->status().ok()) return;
      }
      for (int64_t first = 0; first < all.count; first += kChunk) {
        Chunk chunk{i, std::min(kChunk, all.count - first), all.gradient + first, {}};
        for (int kind = 0; kind < 4; ++kind)
          if (all.variables[kind]) chunk.variables[kind] = all.variables[kind] + first;
        chunks.push_back(chunk);
      }
    }
    std::vector<double> squares(chunks.size());
    Share(c, threads_, chunks.size(), [&](int k) {
      Rule own = rule;
      own.shrink = decays_[chunks[k].weight] ? shrink : 1;
      float* const* at = chunks[k].variables;
      squares[k] = Update(own, chunks[k].count, chunks[k].gradient, at[0], at[1], at[2], at[3]);
    });
    Tensor* norms;
    OP_REQUIRES_OK(c, c->allocate_output(0, {weights_}, &norms));
    std::vector<double> sums(weights_);
    for (size_t k = 0; k < chunks.size(); ++k) sums[chunks[k].weight] += squares[k];
    for (int i = 0; i < weights_; ++i) Data(norms)[i] = std::sqrt(sums[i]);
  }

 private:
  static constexpr int64_t kChunk = 1 << 13;  // numbers; takes a dozen microseconds

  struct Chunk {
    int weight;
    int64_t count;
    const float* gradient;
    float* variables[4];  // weight, m, v and, if there is one, average
  };

  // A variable's numbers; copied first if someone else holds them. Needs no lock: the graph
  // reads and assigns the variable before or after this operation.
  float* Writable(OpKernelContext* c, int input, const TensorShape& shape,
                  std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>>* held) {
    tensorflow::core::RefCountPtr<tensorflow::Var> variable;
    absl::Status status =
        tensorflow::LookupResource(c, tensorflow::HandleFromInput(c, input), &variable);
    Tensor* tensor = status.ok() ? variable->tensor() : nullptr;
    if (status.ok() && !(tensor->dtype() == tensorflow::DT_FLOAT && tensor->shape() == shape))
      status = InvalidArgument("a variable does not fit its gradient");
    if (status.ok() && !tensor->RefCountIsOne()) {
      Tensor copy;
      status = c->allocate_temp(tensorflow::DT_FLOAT, shape, &copy);
      if (status.ok()) {
        std::copy_n(Data(*tensor), shape.num_elements(), Data(&copy));
        *tensor = copy;
      }
    }
    if (!status.ok()) {
      c->CtxFailure(status);
      return nullptr;
    }
    held->push_back(std::move(variable));
    return Data(tensor);
  }

  int weights_, averages_, threads_;
  std::vector<bool> decays_;
  Rule rule_{};
};

REGISTER_KERNEL_BUILDER(Name("AdamUpdate").Device(DEVICE_CPU), AdamUpdateOp);
REGISTER_KERNEL_BUILDER(Name("ConvPool").Device(DEVICE_CPU), ConvPoolOp);
REGISTER_KERNEL_BUILDER(Name("ConvPoolGradient").Device(DEVICE_CPU), ConvPoolGradientOp<true>);
REGISTER_KERNEL_BUILDER(Name("ConvPoolWeightGradient").Device(DEVICE_CPU),
                        ConvPoolGradientOp<false>);
REGISTER_KERNEL_BUILDER(Name("Dropout").Device(DEVICE_CPU), DropoutOp);
REGISTER_KERNEL_BUILDER(Name("DropoutGradient").Device(DEVICE_CPU), DropoutGradientOp);
REGISTER_KERNEL_BUILDER(Name("SeluNorm").Device(DEVICE_CPU), SeluNormOp);
REGISTER_KERNEL_BUILDER(Name("SeluNormGradient").Device(DEVICE_CPU), SeluNormGradientOp);

}  // namespace
}  // namespace lenet
