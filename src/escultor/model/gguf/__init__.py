"""GGUF, the file format of llama.cpp, Ollama and LM Studio: read, written, and served by llama.cpp."""
