-- Group commit: many commands in one call. VOLATILE, so that every statement has a fresh snapshot: what is read after the heads are locked
-- is what was committed before the lock was granted.
--
-- l_shard: the batch's shards, each once, rising. s_*: its streams, each once, with the version expected (NULL: any) and the events that come.
-- k_*: its kinds of event. e_*: an entry an event: stream, shard and kind as places in those lists, and its number within the batch's
-- events of its stream and of its shard (1, 2, …). An empty list of actors, correlations or causations: none has one.
-- o_*: an entry for each stream a command writes, with the place of its last event in e_*. A batch holds no command twice, and a stream with
-- an expected version in one command only.
--
-- Either everything is written, or nothing and `again` lists the commands that had been handled before (by id) and `wrong` the streams that
-- do not stand where expected (by place): the caller answers those and sends the others again.
CREATE FUNCTION append_events(
    l_shard smallint[], s_stream text[], s_expected bigint[], s_count int[],
    e_stream int[], e_version int[], e_shard int[], e_position int[],
    k_category text[], k_topic text[], e_kind int[], e_state bytea[], e_actor text[], e_command uuid[], e_correlation uuid[], e_causation uuid[],
    o_command uuid[], o_write smallint[], o_event int[], o_money boolean[], i_rows jsonb[],
    OUT at timestamptz, OUT versions bigint[], OUT positions bigint[], OUT again uuid[], OUT wrong int[]
) LANGUAGE plpgsql VOLATILE AS $append$
#variable_conflict use_variable
BEGIN
    SELECT array_agg(h.position), greatest(clock_timestamp(), max(h.at)) INTO positions, at
    FROM (SELECT h.position, h.at FROM shard_heads h WHERE h.shard = ANY(l_shard) ORDER BY h.shard FOR UPDATE) h;

    again := ARRAY(SELECT DISTINCT o.command_id FROM command_outcomes o WHERE o.command_id = ANY(o_command));
    versions := ARRAY(
        SELECT coalesce(h.version, 0) FROM unnest(s_stream) WITH ORDINALITY s(stream, ord)
        LEFT JOIN stream_heads h ON h.stream = s.stream ORDER BY s.ord
    );
    wrong := ARRAY(
        SELECT s.ord::int FROM unnest(s_expected, versions) WITH ORDINALITY s(expected, version, ord) WHERE s.expected <> s.version
    );
    IF again <> '{}' OR wrong <> '{}' THEN
        RETURN;
    END IF;

    INSERT INTO events (category, shard, position, stream, version, topic, at, actor, command_id, correlation_id, causation_id, state)
    SELECT k_category[e.kind], l_shard[e.shard], positions[e.shard] + e.position, s_stream[e.stream], versions[e.stream] + e.version,
        k_topic[e.kind], at, e.actor, e.command, e.correlation, e.causation, e.state
    FROM unnest(e_stream, e_version, e_shard, e_position, e_kind, e_state, e_actor, e_command, e_correlation, e_causation)
        e(stream, version, shard, position, kind, state, actor, command, correlation, causation);

    -- The shard's lock keeps everyone else from these rows, so which are new is known.
    UPDATE stream_heads h SET version = s.version + s.count
    FROM unnest(s_stream, versions, s_count) s(stream, version, count) WHERE h.stream = s.stream AND s.version > 0;
    INSERT INTO stream_heads (stream, version)
    SELECT s.stream, s.count FROM unnest(s_stream, versions, s_count) s(stream, version, count) WHERE s.version = 0;

    UPDATE shard_heads h SET position = positions[n.shard] + n.count, at = append_events.at
    FROM (SELECT e.shard, max(e.position) AS count FROM unnest(e_shard, e_position) e(shard, position) GROUP BY e.shard) n
    WHERE h.shard = l_shard[n.shard];

    INSERT INTO command_outcomes (command_id, write, at, money, shard, position)
    SELECT o.command, o.write, at, o.money, l_shard[e_shard[o.event]], positions[e_shard[o.event]] + e_position[o.event]
    FROM unnest(o_command, o_write, o_event, o_money) o(command, write, event, money);

    IF i_rows <> '{}' THEN
        PERFORM write_index(i.rows) FROM unnest(i_rows) i(rows);
    END IF;
END
$append$;

-- What commands came to that were handled before. Rows out: a row for each stream written, or one with the refusal.
CREATE FUNCTION outcomes_of(
    commands uuid[],
    OUT command uuid, OUT at timestamptz, OUT stream text, OUT version bigint, OUT shard smallint, OUT "position" bigint, OUT refusal text
) RETURNS SETOF record LANGUAGE sql STABLE AS $outcomes$
    SELECT o.command_id, o.at, e.stream, e.version, o.shard, o.position, o.refusal FROM command_outcomes o
    LEFT JOIN LATERAL (
        SELECT e.stream, e.version FROM events e
        WHERE e.category = ANY(ARRAY['lifecycle', 'chat', 'media', 'money']) AND e.shard = o.shard AND e.position = o.position
    ) e ON true
    WHERE o.command_id = ANY(commands) ORDER BY o.command_id, o.write
$outcomes$;
