# SPDX-License-Identifier: Apache-2.0
"""Faults injected into the real programs; see `python -m tests.torture --help`."""
