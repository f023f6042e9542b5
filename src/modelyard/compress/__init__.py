"""Passes from model to model, and the gate that accepts one only on paired evidence."""
