"""The project file, and the loop that runs it step by step."""
