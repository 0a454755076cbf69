# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests."""

# The programs' way of loading TensorFlow: with oneDNN, which is read only then.
import device

# As the programs do it.
device.set_threads(0)
