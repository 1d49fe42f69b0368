"""One process a user that holds every connection: its HTTP API, its client, its state, its life and death."""
