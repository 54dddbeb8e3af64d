"""What happened: one vocabulary (`events.py`) for the log, the metrics and the trace. Imports nothing of the engine
but its nouns, so every room may tell what it does."""
