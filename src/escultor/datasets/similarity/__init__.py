"""Exact and near duplicates: normal forms, hashes, MinHash bands, clusters, passages inside longer texts."""
