"""Fixtures that give a test an emulated GitHub account."""
