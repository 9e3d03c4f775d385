"""One shard's run: settings, work list, preflight, log of the questions, progress."""
