"""Detectors of drift, one a file."""
