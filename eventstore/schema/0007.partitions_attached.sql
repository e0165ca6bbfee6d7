-- A partition is made beside its parent and then attached: PARTITION OF would lock the parent against every reader and writer, and one
-- who reads several partitions while another process starts would end in a deadlock.
CREATE OR REPLACE FUNCTION extend_events(needed bigint) RETURNS bigint LANGUAGE plpgsql AS $extend$
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
                EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS)', leaf);
                -- The heads keep both unique; the indexes would say so if they ever did not.
                EXECUTE format('CREATE UNIQUE INDEX ON %I (shard, position)', leaf);
                EXECUTE format('CREATE UNIQUE INDEX ON %I (stream, version)', leaf);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                    'events_' || class, leaf, first, first + width);
            END IF;
            first := first + width;
        END LOOP;
    END LOOP;
    RETURN first;
END
$extend$;
