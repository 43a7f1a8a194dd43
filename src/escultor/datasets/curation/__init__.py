"""Curation: raw rows to a dataset one can trust. A step is one pure function and one row of `steps.STEPS`."""
