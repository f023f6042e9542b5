"""The steps of the loop, one a file."""
