# SPDX-License-Identifier: Apache-2.0
"""Digits read off photographs of paper."""
