"""Places that a model can be taken to, one target a file."""
