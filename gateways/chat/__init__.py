"""Chat pods: WebSocket rooms that admit messages through the event store and fan out what Kafka carries back."""
