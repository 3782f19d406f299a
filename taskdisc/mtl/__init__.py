"""Multi-task training: a network for a main task and for others beside it."""
