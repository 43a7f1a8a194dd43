"""Importers: files of other programs as rows to train on, or as interactions and feedback."""
