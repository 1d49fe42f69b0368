"""Finds out what keeps kernels in codespaces from working here, and says what mends it.

One module a group of checks; each check is a function of the `Subject` that gives `Finding`s. Nothing is changed, here,
in the account or in a codespace, unless a stopped one may be started. To look into a running codespace is to use it,
though: its idle timeout begins anew, and its SSH server is started for the user's key, as by every connection.
"""
