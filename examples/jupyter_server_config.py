"""New notebooks start on the kernel of a codespace: `jupyter lab --config examples/jupyter_server_config.py`.

First write the kernelspec with `codespace-kernels connect octocat/hello-codespaces`, and put your own name here.
"""

c = get_config()  # noqa: F821  (Jupyter defines it)

c.MultiKernelManager.default_kernel_name = "cs-octocat-hello-codespaces-python3"

# A stopped codespace is woken when a notebook is opened, not only when its first cell is run.
c.CodespaceProvisioner.wake = "on-open"
