# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: feeds arbitrary bytes to the readers of outside bytes.

readers        each reader as a function of bytes
seeds          small files for each reader to start from
target         one reader under atheris, which looks for inputs that reach new code
python -m tests.fuzz
               all readers in turn, each in a process of limited memory and time
"""
