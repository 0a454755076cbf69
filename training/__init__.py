# SPDX-License-Identifier: Apache-2.0
"""What the loop is made of: losses, optimizers, schedules, checkpoints, summaries."""
