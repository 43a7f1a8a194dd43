"""Mined sources: documentation of the installed Python packages as documents and gold examples."""
