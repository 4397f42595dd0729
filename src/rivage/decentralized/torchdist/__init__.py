"""Decentralised training for real: one process per silo, models over the arcs of the overlay only."""
