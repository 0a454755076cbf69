// SPDX-License-Identifier: Apache-2.0
// AdamUpdate as a TensorFlow operation; part of ops.cc.

#ifndef LENET_ADAM_OP_H_
#define LENET_ADAM_OP_H_

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "op.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace lenet {
namespace {

REGISTER_OP("AdamUpdate")
    .Attr("weights: int >= 1")
    .Attr("averages: int >= 0")
    .Attr("factors: list(float)")
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

// Calls f(0) ... f(count - 1) on this thread and others, and waits for these calls, but not
// for threads that have not started yet. threads: number of threads that may share the work;
// may be more than the operation's own, since other operations' threads may be idle.
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
    OP_REQUIRES_OK(c, c->GetAttr("factors", &factors_));
    OP_REQUIRES_OK(c, c->GetAttr("decays", &decays_));
    OP_REQUIRES_OK(c, c->GetAttr("beta1", &rule_.beta1));
    OP_REQUIRES_OK(c, c->GetAttr("beta2", &rule_.beta2));
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &rule_.epsilon));
    OP_REQUIRES_OK(c, c->GetAttr("threads", &threads_));
    OP_REQUIRES(c, static_cast<int>(factors_.size()) == weights_ &&
                       static_cast<int>(decays_.size()) == weights_ &&
                       (averages_ == 0 || averages_ == weights_),
                InvalidArgument("expected as many factors and decays as weights, and as many"
                                " averages or none"));
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
      own.rate *= factors_[chunks[k].weight];
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
  static constexpr int64_t kChunk = 1 << 13;  // numbers; about a dozen microseconds of work

  struct Chunk {
    int weight;
    int64_t count;
    const float* gradient;
    float* variables[4];  // weight, m, v, and average or null
  };

  // Returns a variable's numbers to write to. If somebody else holds them, the variable gets
  // a copy first. Needs no lock: the graph orders all reads and writes of a variable.
  float* Writable(OpKernelContext* c, int input, const TensorShape& shape,
                  std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>>* held) {
    tensorflow::core::RefCountPtr<tensorflow::Var> variable;
    absl::Status status =
        tensorflow::LookupResource(c, tensorflow::HandleFromInput(c, input), &variable);
    Tensor* tensor = status.ok() ? variable->tensor() : nullptr;
    if (status.ok() && !(tensor->dtype() == tensorflow::DT_FLOAT && tensor->shape() == shape))
      status = InvalidArgument("expected float32 variables with the shapes of their gradients");
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
  std::vector<float> factors_;  // on the rate
  std::vector<bool> decays_;
  Rule rule_{};
};

REGISTER_KERNEL_BUILDER(Name("AdamUpdate").Device(DEVICE_CPU), AdamUpdateOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_ADAM_OP_H_
