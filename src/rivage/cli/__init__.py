"""The command line: parses, calls a study, prints. No result is computed here."""
