"""Read models: Faust agents turn recorded events into Postgres rows, exactly once, and rebuild them without downtime."""
