"""Implementations under test: ours, shims for libraries, and the user's own."""
