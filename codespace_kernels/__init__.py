"""Run notebooks in a GitHub Codespace as if its kernels were local ones.

This file is also uploaded into codespaces beside `link` and `remote`: it imports nothing and runs on Python 3.8.
"""

__version__ = "0.1.0.dev0"


def _jupyter_labextension_paths() -> "list[dict[str, str]]":
    """Tell `jupyter labextension develop` where the panel is when it is built."""
    return [{"src": "labextension", "dest": "codespace-kernels"}]
