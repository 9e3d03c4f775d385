"""One shard's run: settings, questions to work on, journal, progress."""
