"""Verify revision trees."""
