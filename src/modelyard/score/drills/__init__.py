"""Drills: a fault planted into a copy of live traffic, one a file."""
