"""Feedback on answers: who may send it, how it is written, and how it becomes durable."""
