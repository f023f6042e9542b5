"""Modelyard: a model ships on evidence."""

__version__ = "0.1.0"
