// SPDX-License-Identifier: Apache-2.0
// Names and helpers for the operations in ops.cc.

#ifndef LENET_OP_H_
#define LENET_OP_H_

#include "kernels.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace lenet {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

float* Data(Tensor* tensor) { return tensor->flat<float>().data(); }
const float* Data(const Tensor& tensor) { return tensor.flat<float>().data(); }

}  // namespace
}  // namespace lenet

#endif  // LENET_OP_H_
