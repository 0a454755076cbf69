# SPDX-License-Identifier: Apache-2.0
"""Training steps in C++: `ops` has the operations, `compile` builds them."""
