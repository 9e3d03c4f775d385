"""Sources of the demo databases: one module per database, each with its schema, rows, descriptions and questions."""

from datetime import date, timedelta


def day_after(start: str, days: int) -> str:
    """Return the ISO date `days` after `start`; offsets keep related dates (borrowed, returned) consistent."""
    return (date.fromisoformat(start) + timedelta(days=days)).isoformat()
