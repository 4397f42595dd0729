"""Designed overlays: how good, how fast."""
