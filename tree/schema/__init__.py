"""A database as prompt text: reading its schema, writing it, descriptions, matching values."""
