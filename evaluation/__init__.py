# SPDX-License-Identifier: Apache-2.0
"""What is computed from a finished run: scores, their report, comparisons."""
