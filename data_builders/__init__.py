"""Raw files -> prepared data sets; start with `python -m data_builders.prepare`."""
