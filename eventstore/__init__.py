"""The only truth: append, read, subscribe, relay to Kafka, field encryption, upcasting. Knows events only as pydantic models."""
