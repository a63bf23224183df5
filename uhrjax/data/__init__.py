"""Prepared data sets: what they hold, window reads, batches."""
