"""What parses bytes from outside is fed with bytes that nobody would send: `python -m tests.fuzz --help`."""
