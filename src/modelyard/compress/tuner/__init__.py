"""A tuner of anything that is timed: a space, a cost model, measured trials, a journal."""
