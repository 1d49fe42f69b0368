"""A GitHub account with codespaces that run on this machine; replaces the account, nothing else."""
