"""Networks that label one view each, with one file per network."""
