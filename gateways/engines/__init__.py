"""The engines that `tallylight up` and the tests bring along: Postgres and a Kafka-protocol broker from their wheels."""
