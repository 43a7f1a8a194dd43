"""What computes answers, each behind the one protocol of `serve.protocol`."""
