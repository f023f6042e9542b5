"""The prediction service: a pure plane behind thin doors."""
