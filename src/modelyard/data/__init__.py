"""From a source to an immutable, validated, profiled snapshot."""
