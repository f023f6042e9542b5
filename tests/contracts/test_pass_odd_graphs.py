"""Graphs as other tools write them: every pass returns an equivalent model, or leaves it alone and says so."""
