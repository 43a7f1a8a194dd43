"""Rows in and out: JSONL, importers of other programs' files, exports, documentation mined from packages."""
