"""One module per game: the schema of its studies and what is played for each seed."""
