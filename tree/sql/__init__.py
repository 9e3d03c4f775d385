"""One query: running it, its verdict, its canonical form, what is kept of it."""
