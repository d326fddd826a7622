"""Certificates of individual fairness: center smoothing, randomized smoothing, one row per test point."""
