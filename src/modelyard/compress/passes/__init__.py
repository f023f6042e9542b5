"""One pass a file: a model in, a smaller or faster model out."""
