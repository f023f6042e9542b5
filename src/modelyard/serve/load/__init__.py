"""Load for any HTTP server: open and closed loops, honest percentiles, the ceiling beside them."""
