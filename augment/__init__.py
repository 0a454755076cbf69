# SPDX-License-Identifier: Apache-2.0
"""Transforms that enlarge the training set: offline, on disk, and online, per step."""
