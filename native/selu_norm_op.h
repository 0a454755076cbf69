// SPDX-License-Identifier: Apache-2.0
// SeluNorm and its gradient as TensorFlow operations; part of ops.cc.

#ifndef LENET_SELU_NORM_OP_H_
#define LENET_SELU_NORM_OP_H_

#include "op.h"

namespace lenet {
namespace {

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

// Returns true if inputs `first` and later have a number per channel of x; else reports an
// error.
bool FitsChannels(OpKernelContext* c, const Tensor& x, int first) {
  const int64_t channels = x.dims() > 0 ? x.dim_size(x.dims() - 1) : 0;
  bool fits = channels > 0;
  for (int input = first; input < c->num_inputs(); ++input)
    fits = fits && c->input(input).NumElements() == channels;
  if (!fits)
    c->CtxFailure(InvalidArgument("expected vectors with a number per channel of the shape ",
                                  x.shape().DebugString()));
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
    // Overwrites x if nothing else needs it: its memory is in the cache.
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
                InvalidArgument("dy and z differ in size"));
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

REGISTER_KERNEL_BUILDER(Name("SeluNorm").Device(DEVICE_CPU), SeluNormOp);
REGISTER_KERNEL_BUILDER(Name("SeluNormGradient").Device(DEVICE_CPU), SeluNormGradientOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_SELU_NORM_OP_H_
