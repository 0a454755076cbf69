# SPDX-License-Identifier: Apache-2.0
"""Errors, command lines, the console, files and the device: below all else."""
