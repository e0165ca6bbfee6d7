-- Group commit: many commands in one call. VOLATILE, so that every statement has a fresh snapshot: what is read after the heads are locked
-- is what was committed before the lock was granted.
--
-- l_*: the batch's shards, each once, rising, and how many events come to each. s_*: its streams, each once, with the version expected (NULL:
-- any) and the events that come. k_*: its kinds of event. c_*: its commands, each once; an empty list of actors, correlations or causations:
-- none has one. e_*: an entry an event: stream, shard, kind and command as places in those lists, and its number within the batch's events of
-- its stream and of its shard (1, 2, …). o_*: an entry for each stream a command writes: the command's place and that of its last event there.
-- A stream with an expected version is in one command only.
--
-- Either everything is written, or nothing and `again` lists the commands that had been handled before (by id) and `wrong` the streams that
-- do not stand where expected (by place): the caller answers those and sends the others again.
--
-- Lists are unnested in select lists, which steps through them; in FROM each would first be copied to a store of its own.
CREATE FUNCTION append_events(
    l_shard smallint[], l_count int[], s_stream text[], s_expected bigint[], s_count int[], k_category text[], k_topic text[],
    c_id uuid[], c_money boolean[], c_actor text[], c_correlation uuid[], c_causation uuid[],
    e_stream int[], e_version int[], e_shard int[], e_position int[], e_kind int[], e_command int[], e_state bytea[],
    o_command int[], o_write smallint[], o_event int[], i_rows jsonb[],
    OUT at timestamptz, OUT versions bigint[], OUT positions bigint[], OUT again uuid[], OUT wrong int[]
) LANGUAGE plpgsql VOLATILE AS $append$
#variable_conflict use_variable
BEGIN
    SELECT array_agg(h.position), greatest(clock_timestamp(), max(h.at)) INTO positions, at
    FROM (SELECT h.position, h.at FROM shard_heads h WHERE h.shard = ANY(l_shard) ORDER BY h.shard FOR UPDATE) h;

    again := ARRAY(SELECT o.command_id FROM command_outcomes o WHERE o.command_id = ANY(c_id));
    versions := ARRAY(
        SELECT coalesce((SELECT h.version FROM stream_heads h WHERE h.stream = s.stream), 0) FROM (SELECT unnest(s_stream) AS stream) s
    );
    wrong := '{}';
    IF s_expected <> versions THEN
        wrong := ARRAY(
            SELECT s.ord::int FROM unnest(s_expected, versions) WITH ORDINALITY s(expected, version, ord)
            WHERE s.expected <> s.version ORDER BY s.ord
        );
    END IF;
    IF again <> '{}' OR wrong <> '{}' THEN
        RETURN;
    END IF;

    INSERT INTO events (category, shard, position, stream, version, topic, at, actor, command_id, correlation_id, causation_id, state)
    SELECT k_category[e.kind], l_shard[e.shard], positions[e.shard] + e.position, s_stream[e.stream], versions[e.stream] + e.version,
        k_topic[e.kind], at, c_actor[e.command], c_id[e.command], c_correlation[e.command], c_causation[e.command], e.state
    FROM (
        SELECT unnest(e_stream) AS stream, unnest(e_version) AS version, unnest(e_shard) AS shard, unnest(e_position) AS position,
            unnest(e_kind) AS kind, unnest(e_command) AS command, unnest(e_state) AS state
    ) e;

    -- The shard's lock keeps everyone else from these rows, so which are new is known.
    IF 0 < ANY(versions) THEN
        UPDATE stream_heads h SET version = h.version + s.count
        FROM (SELECT unnest(s_stream) AS stream, unnest(s_count) AS count) s WHERE h.stream = s.stream;
    END IF;
    IF 0 = ANY(versions) THEN
        INSERT INTO stream_heads (stream, version)
        SELECT s.stream, s.count
        FROM (SELECT unnest(s_stream) AS stream, unnest(versions) AS version, unnest(s_count) AS count) s WHERE s.version = 0;
    END IF;

    UPDATE shard_heads h SET position = h.position + n.count, at = append_events.at
    FROM (SELECT unnest(l_shard) AS shard, unnest(l_count) AS count) n WHERE h.shard = n.shard;

    INSERT INTO command_outcomes (command_id, write, at, money, shard, position)
    SELECT c_id[o.command], o.write, at, c_money[o.command], l_shard[e_shard[o.event]], positions[e_shard[o.event]] + e_position[o.event]
    FROM (SELECT unnest(o_command) AS command, unnest(o_write) AS write, unnest(o_event) AS event) o;

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
