"""The only code that runs inside a workspace: a Jupyter server extension, its child and a splice. Python 3.8+."""
