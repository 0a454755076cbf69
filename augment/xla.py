# SPDX-License-Identifier: Apache-2.0
"""How the online transforms are compiled."""

import tensorflow as tf

# XLA fuses many small operations into one loop; matrix products are left to TensorFlow,
# which is faster at them on a CPU.
compiled = tf.function(autograph=False, jit_compile=True)
