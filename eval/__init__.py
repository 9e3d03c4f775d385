"""Verify revision trees, and evaluate what reward models choose."""
