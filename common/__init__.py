"""What every step needs and nothing of SQL or trees: files, manifests, locks, model folders."""
