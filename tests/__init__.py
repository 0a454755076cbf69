# SPDX-License-Identifier: Apache-2.0
"""A package, so that none of the same name is taken for it."""
