"""Values and rules shared by every package: errors, seeds, settings, messages, records, certificates."""
