# SPDX-License-Identifier: Apache-2.0
"""Measurements of this project beside other libraries; nothing else imports them."""
