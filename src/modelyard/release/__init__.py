"""Immutable signed releases, and the endpoints whose traffic they carry."""
