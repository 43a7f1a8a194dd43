"""What people make of answers: who may say it, how it is written, and how it becomes durable."""
