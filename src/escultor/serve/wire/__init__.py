"""OpenAI's JSON: asks, answers and errors."""
