"""Who may ask for what, how often, and over which kind of connection; nothing here knows HTTP or models."""
