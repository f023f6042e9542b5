"""Ground floor: what every room may use. Standard library and numpy only; imports nothing of ours."""
