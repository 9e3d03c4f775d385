"""Preference pairs: which are certain, which are kept, their files."""
