"""Data sets: one interface over rendered and real faces."""
