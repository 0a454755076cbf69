// SPDX-License-Identifier: Apache-2.0
// The kernels as TensorFlow operations. ops.py says what they compute.
//
// Each header has the interface of an operation, the class that runs it, and its gradient.
// They are compiled together because TensorFlow's headers take longest.

#include "adam_op.h"
#include "blur_op.h"
#include "conv3x3_op.h"
#include "conv_pool_op.h"
#include "dropout_op.h"
#include "norm_relu_op.h"
#include "predict_op.h"
#include "resample_op.h"
#include "selu_norm_op.h"
