-- The log: events by class and by range of positions, heads of shards and streams, outcomes of commands.
CREATE TABLE events (
    category text NOT NULL,
    shard smallint NOT NULL,
    position bigint NOT NULL,
    stream text NOT NULL,
    version bigint NOT NULL,
    topic text NOT NULL,
    at timestamptz NOT NULL,
    actor text,
    command_id uuid NOT NULL,
    correlation_id uuid,
    causation_id uuid,
    state bytea NOT NULL
) PARTITION BY LIST (category);
CREATE TABLE events_lifecycle PARTITION OF events FOR VALUES IN ('lifecycle') PARTITION BY RANGE (position);
CREATE TABLE events_chat PARTITION OF events FOR VALUES IN ('chat') PARTITION BY RANGE (position);
CREATE TABLE events_media PARTITION OF events FOR VALUES IN ('media') PARTITION BY RANGE (position);
CREATE TABLE events_money PARTITION OF events FOR VALUES IN ('money') PARTITION BY RANGE (position);

-- A head is updated by every append: room in the page keeps the update off the index.
CREATE TABLE shard_heads (
    shard smallint PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
INSERT INTO shard_heads (shard) SELECT generate_series(0, 63);

CREATE TABLE stream_heads (
    stream text PRIMARY KEY,
    version bigint NOT NULL
) WITH (fillfactor = 70);

-- What a command came to: where the last event of each stream it wrote stands, or one row for a final refusal. `money` is kept for ever,
-- others a day.
CREATE TABLE command_outcomes (
    command_id uuid NOT NULL,
    write smallint NOT NULL,
    at timestamptz NOT NULL,
    money boolean NOT NULL,
    shard smallint,
    position bigint,
    refusal text,
    PRIMARY KEY (command_id, write)
);
CREATE INDEX command_outcomes_to_forget ON command_outcomes USING brin (at);

-- Partitions of 2^22 positions a shard, made ahead of need. The last made edge is the smallest over the classes.
CREATE FUNCTION extend_events(needed bigint) RETURNS bigint LANGUAGE plpgsql AS $extend$
DECLARE
    width constant bigint := 4194304;
    class text;
    first bigint;
    leaf text;
BEGIN
    PERFORM pg_advisory_xact_lock(7308613708);
    FOREACH class IN ARRAY ARRAY['lifecycle', 'chat', 'media', 'money'] LOOP
        first := 0;
        WHILE first < needed LOOP
            leaf := format('events_%s_%s', class, first / width);
            IF to_regclass(leaf) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                    leaf, 'events_' || class, first, first + width);
                -- The heads keep both unique; the indexes would say so if they ever did not.
                EXECUTE format('CREATE UNIQUE INDEX ON %I (shard, position)', leaf);
                EXECUTE format('CREATE UNIQUE INDEX ON %I (stream, version)', leaf);
            END IF;
            first := first + width;
        END LOOP;
    END LOOP;
    RETURN first;
END
$extend$;
DO $first$ BEGIN PERFORM extend_events(1); END $first$;
