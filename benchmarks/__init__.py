# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: speed and accuracy next to other libraries. Nothing else imports them."""
