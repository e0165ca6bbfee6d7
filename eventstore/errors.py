"""The faults of the event store. Expected outcomes are values of `eventstore.port`; what stands here is raised."""


class StoreError(Exception):
    """Base of all that the event store raises."""


class StoreUnavailable(StoreError):
    """The store cannot answer now: nothing is known to be written, and the same command may be sent again."""
