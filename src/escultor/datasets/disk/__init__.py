"""Rows between two passes on disk: lines, columns of numbers, selection by lowest key."""
