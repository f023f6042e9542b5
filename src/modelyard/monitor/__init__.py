"""Windows of the prediction log held against the release's own profile."""
