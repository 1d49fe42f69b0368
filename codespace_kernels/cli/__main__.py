"""`python -m codespace_kernels.cli VERB …`: the command line where its program is not on the path."""

import sys

from codespace_kernels.cli import main

if __name__ == "__main__":
    sys.exit(main())
