# SPDX-License-Identifier: Apache-2.0
"""Transforms that enlarge the training set."""
