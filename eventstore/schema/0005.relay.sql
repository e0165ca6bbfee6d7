-- Up to where the relay has handed each shard to the log of the conveyor. Written by the leader alone, on the session that holds its lock.
CREATE TABLE relay_positions (
    shard smallint PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO relay_positions (shard) SELECT generate_series(0, 63);
