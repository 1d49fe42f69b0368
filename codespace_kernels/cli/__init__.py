"""The command line: `codespace-kernels VERB …`, also `jupyter codespaces VERB …`. One module a verb."""

from codespace_kernels.cli.app import main

__all__ = ["main"]
