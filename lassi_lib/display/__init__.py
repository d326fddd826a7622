"""Pure plotting functions: arrays and tables in, figures out; no result is computed here."""
