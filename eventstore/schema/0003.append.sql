-- Group commit: many commands in one call, each with an outcome of its own. VOLATILE, so that every statement has a fresh snapshot and
-- what is read after the lock is what was committed before it was granted.
--
-- c_*: one entry a command. w_*: one entry a stream written (w_command and w_first are 1-based). e_*: one entry an event, in the order of
-- the writes. A batch holds no two commands of one id, and no stream twice unless every write to it expects any version.
--
-- Rows out, per command and write: status 'a'ppended, 'd'uplicate, 'w'rong version (version: the actual one), 'r'efused before.
CREATE FUNCTION append_commands(
    c_id uuid[], c_actor text[], c_correlation uuid[], c_causation uuid[], c_money boolean[], c_index jsonb[],
    w_command int[], w_stream text[], w_shard smallint[], w_expected bigint[], w_first int[], w_count int[],
    e_write int[], e_category text[], e_topic text[], e_state bytea[],
    OUT command int, OUT status "char", OUT stream text, OUT shard smallint, OUT version bigint, OUT "position" bigint,
    OUT at timestamptz, OUT refusal text
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $append$
#variable_conflict use_column
DECLARE
    recorded timestamptz;
    skipped int[];
    wrong int[];
    i int;
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT h.at FROM shard_heads h WHERE h.shard = ANY(w_shard) ORDER BY h.shard FOR UPDATE
    )
    SELECT max(locked.at) INTO recorded FROM locked;
    recorded := greatest(clock_timestamp(), recorded);

    skipped := ARRAY(
        SELECT c.ord FROM unnest(c_id) WITH ORDINALITY c(id, ord)
        WHERE EXISTS (SELECT FROM command_outcomes o WHERE o.command_id = c.id)
    );
    wrong := ARRAY(
        SELECT w.command FROM unnest(w_command, w_stream, w_expected) w(command, stream, expected)
        LEFT JOIN stream_heads h ON h.stream = w.stream
        WHERE w.expected IS NOT NULL AND w.expected <> coalesce(h.version, 0) AND w.command <> ALL(skipped)
    );
    IF skipped <> '{}' THEN
        RETURN QUERY SELECT s.ord::int, CASE WHEN o.refusal IS NULL THEN 'd' ELSE 'r' END::"char", o.stream, o.shard,
                o.version, o.position, o.at, o.refusal
            FROM unnest(skipped) s(ord) JOIN command_outcomes o ON o.command_id = c_id[s.ord] ORDER BY s.ord, o.write;
    END IF;
    IF wrong <> '{}' THEN
        RETURN QUERY SELECT DISTINCT ON (w.command) w.command, 'w'::"char", w.stream, NULL::smallint,
                coalesce(h.version, 0), NULL::bigint, NULL::timestamptz, NULL::text
            FROM unnest(w_command, w_stream, w_expected) WITH ORDINALITY w(command, stream, expected, ord)
            LEFT JOIN stream_heads h ON h.stream = w.stream
            WHERE w.command = ANY(wrong) AND w.expected <> coalesce(h.version, 0) ORDER BY w.command, w.ord;
        skipped := skipped || wrong;
    END IF;

    RETURN QUERY WITH w AS MATERIALIZED (
        SELECT w.ord, w.command, w.stream, w.shard, w.first, w.count,
            coalesce(h.version, 0) + sum(w.count) OVER (PARTITION BY w.stream ORDER BY w.ord) - w.count AS version,
            s.position + sum(w.count) OVER (PARTITION BY w.shard ORDER BY w.ord) - w.count AS position
        FROM unnest(w_command, w_stream, w_shard, w_first, w_count) WITH ORDINALITY w(command, stream, shard, first, count, ord)
        JOIN shard_heads s ON s.shard = w.shard
        LEFT JOIN stream_heads h ON h.stream = w.stream
        WHERE w.command <> ALL(skipped)
    ), inserted AS (
        INSERT INTO events (category, shard, position, stream, version, topic, at, actor, command_id, correlation_id, causation_id, state)
        SELECT e.category, w.shard, w.position + (e.ord - w.first) + 1, w.stream, w.version + (e.ord - w.first) + 1,
            e.topic, recorded, c_actor[w.command], c_id[w.command], c_correlation[w.command], c_causation[w.command], e.state
        FROM unnest(e_write, e_category, e_topic, e_state) WITH ORDINALITY e(write, category, topic, state, ord)
        JOIN w ON w.ord = e.write
    ), streams AS (
        INSERT INTO stream_heads AS h (stream, version)
        SELECT w.stream, max(w.version + w.count) FROM w GROUP BY w.stream
        ON CONFLICT (stream) DO UPDATE SET version = excluded.version
    ), shards AS (
        UPDATE shard_heads s SET position = n.position, at = recorded
        FROM (SELECT w.shard, max(w.position + w.count) AS position FROM w GROUP BY w.shard) n WHERE s.shard = n.shard
    ), outcomes AS (
        INSERT INTO command_outcomes (command_id, write, at, money, stream, shard, version, position)
        SELECT c_id[w.command], w.ord, recorded, c_money[w.command], w.stream, w.shard, w.version + w.count, w.position + w.count FROM w
    )
    SELECT w.command, 'a'::"char", w.stream, w.shard, (w.version + w.count)::bigint, (w.position + w.count)::bigint, recorded, NULL::text
    FROM w ORDER BY w.ord;

    FOR i IN SELECT c.ord FROM unnest(c_index) WITH ORDINALITY c(rows, ord) WHERE c.rows IS NOT NULL AND c.ord <> ALL(skipped) LOOP
        PERFORM write_index(c_index[i]);
    END LOOP;
END
$append$;
