"""The front door: what an application asks is answered by an engine, logged, and given back."""
