"""One handler a command: authorise, load, decide, append, answer."""
