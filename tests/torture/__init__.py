# SPDX-License-Identifier: Apache-2.0
"""Fault injection into the real programs; see `python -m tests.torture --help`."""
