"""Kernels work while everything on their way breaks: `python -m tests.chaos --help`."""
