"""Checks: evidence for one test of the score a file."""
