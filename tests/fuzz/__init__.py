# SPDX-License-Identifier: Apache-2.0
"""The readers of outside bytes, fed with bytes that nobody meant.

fuzz.readers   each reader as a function of bytes, and a few sound files
fuzz.target    one of them under atheris, which looks for inputs that reach new code
fuzz           all of them in turn, each in a process with bounded memory and time
"""
