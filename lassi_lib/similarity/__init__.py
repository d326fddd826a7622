"""Attribute vectors and the similarity sets they span."""
