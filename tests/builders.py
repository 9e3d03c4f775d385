"""Builders of trees, pairs and databases that several tests use."""
