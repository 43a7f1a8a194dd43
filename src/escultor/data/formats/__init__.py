"""Rows of other programs as rows of ours: a table of formats, and a pure function for each."""
