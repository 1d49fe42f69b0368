"""Many kernels on one connection for a long time, and what that costs: `python -m tests.soak --help`."""
