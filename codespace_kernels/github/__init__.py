"""GitHub's REST API for codespaces: client, authentication, models."""
