"""SSH over any byte stream: connect, run, upload, forward, host keys."""
