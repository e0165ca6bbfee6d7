"""Payment providers behind one port: the built-in sandbox now, others beside it."""
