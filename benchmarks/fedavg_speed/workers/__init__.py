"""One module per contestant, each run in a process and, for other projects, an interpreter of its own."""
