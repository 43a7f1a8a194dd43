"""Datasets: curation, balance, splits, held-out prompts, versions, cards, review, provenance.

`rows`, `disk` and `similarity` are the ground; `curation` runs the steps; `build` makes a version from files.
"""
