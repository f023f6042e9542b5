"""Bytes of a protocol to tensors and back; nothing here knows HTTP, models or endpoints."""
