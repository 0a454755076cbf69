# SPDX-License-Identifier: Apache-2.0
"""The training of LeNet-SELU in C++: `ops` are its operations, `compile` makes them."""
