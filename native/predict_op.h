// SPDX-License-Identifier: Apache-2.0
// What predicts, as TensorFlow operations without gradients; part of ops.cc.

#ifndef LENET_PREDICT_OP_H_
#define LENET_PREDICT_OP_H_

#include <vector>

#include "conv_pool_op.h"
#include "parts.h"
#include "selu_norm_op.h"

namespace lenet {
namespace {

REGISTER_OP("ConvStack")
    .Input("images: uint8")
    .Input("w: layers * float")
    .Input("bias: layers * float")
    .Input("scale: layers * float")
    .Input("offset: layers * float")
    .Input("mean: layers * float")
    .Input("variance: layers * float")
    .Attr("layers: int >= 1")
    .Attr("epsilon: float")
    .Output("y: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle shape, w;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &shape));
      int layers;
      TF_RETURN_IF_ERROR(c->GetAttr("layers", &layers));
      for (int layer = 1; layer <= layers; ++layer) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(layer), 4, &w));
        shape = c->MakeShape({c->Dim(shape, 0), Half(c, shape, 1), Half(c, shape, 2),
                              c->Dim(w, 3)});
      }
      c->set_output(0, shape);
      return absl::OkStatus();
    });

REGISTER_OP("SeluNormFixed")
    .Input("x: float")
    .Input("bias: float")
    .Input("scale: float")
    .Input("offset: float")
    .Input("mean: float")
    .Input("variance: float")
    .Attr("epsilon: float")
    .Output("y: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);

class ConvStackOp : public OpKernel {
 public:
  explicit ConvStackOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("layers", &layers_));
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor& images = c->input(0);
    TensorShape shape = images.shape();
    std::vector<ConvLayer> layers;
    for (int layer = 0; layer < layers_; ++layer) {
      const auto input = [&](int kind) -> const Tensor& {
        return c->input(1 + kind * layers_ + layer);
      };
      ConvPoolShape s;
      if (!GetShape(c, shape, input(0), &s)) return;
      for (int kind = 1; kind <= 5; ++kind)
        OP_REQUIRES(c, input(kind).NumElements() == s.outputs,
                    InvalidArgument("expected vectors with a number per map"));
      layers.push_back({s, Data(input(0)),
                        {Data(input(1)), Data(input(2)), Data(input(3)), Data(input(4)),
                         Data(input(5)), epsilon_}});
      shape = {images.dim_size(0), s.rows(), s.columns(), s.outputs};
    }
    Tensor* y;
    OP_REQUIRES_OK(c, c->allocate_output(0, shape, &y));
    const int64_t from = layers[0].shape.image(), to = layers.back().shape.pooled();
    Parts(c, images.dim_size(0)).Each([&](int64_t, int64_t first, int64_t count) {
      ConvStack(layers, count, images.flat<uint8_t>().data() + first * from,
                Data(y) + first * to);
    });
  }

 private:
  int layers_;
  float epsilon_;
};

class SeluNormFixedOp : public OpKernel {
 public:
  explicit SeluNormFixedOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor &x = c->input(0), &bias = c->input(1);
    if (!FitsChannels(c, x, 1)) return;
    Tensor* y;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, x.shape(), &y));
    const int64_t channels = bias.NumElements();
    SeluNorm(x.NumElements() / channels, channels, Data(x),
             {Data(bias), Data(c->input(2)), Data(c->input(3)), Data(c->input(4)),
              Data(c->input(5)), epsilon_},
             Data(y));
  }

 private:
  float epsilon_;
};

REGISTER_KERNEL_BUILDER(Name("ConvStack").Device(DEVICE_CPU), ConvStackOp);
REGISTER_KERNEL_BUILDER(Name("SeluNormFixed").Device(DEVICE_CPU), SeluNormFixedOp);

}  // namespace
}  // namespace lenet

#endif  // LENET_PREDICT_OP_H_
