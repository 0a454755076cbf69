# SPDX-License-Identifier: Apache-2.0
"""LeNet's training step in C++: `ops` has its operations, `compile` builds them."""
