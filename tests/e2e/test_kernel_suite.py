"""Jupyter's own conformance tests, `jupyter_kernel_test`, on the Python kernel of the emulated codespace.

They start the kernel by `jupyter_client`, so through the provisioner. A test of theirs is skipped where its sample of
code is missing; all samples are given, so one thing is left out only, as ipykernel's own tests leave it out:

- the range of a history in `test_history`: IPython answers a range of the running session with session number 0, not
  with the number that its `tail` has; so does the local kernel.
"""

from __future__ import annotations

import pytest

jupyter_kernel_test = pytest.importorskip("jupyter_kernel_test", reason="jupyter_kernel_test is not installed")

PATIENCE = 30.0
"""Seconds that a message may take; theirs are 0.1, which a busy machine exceeds with any kernel."""


@pytest.mark.e2e
@pytest.mark.usefixtures("kernel_name")
class TestKernelSuite(jupyter_kernel_test.KernelTests):
    """The suite, told what Python looks like."""

    kernel_name = "cs-octocat-hello-codespaces-python3"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('on purpose')"
    code_execute_result = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    def execute_helper(self, *args, **kwargs):
        """Execute as the suite does, but wait longer for each message."""
        channel = self.kc.iopub_channel
        get_msg = channel.get_msg
        channel.get_msg = lambda timeout=None: get_msg(timeout=PATIENCE)
        try:
            return super().execute_helper(*args, **kwargs)
        finally:
            channel.get_msg = get_msg
