"""From a recipe to a trained estimator or module: search, fit, checkpoint, resume."""
