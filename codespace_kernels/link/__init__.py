"""The link between broker and remote server: numbered, acknowledged, replayed frames. Runs on Python 3.8 too."""
