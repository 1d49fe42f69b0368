"""A Jupyter server that is not ours, as a client sees it: REST and kernel websocket."""
