-- Chat admission and append in one: many messages in one call, each admitted or refused. The SQL twin of domain/chat_admission.py.
-- VOLATILE: bans, modes and last messages are read in a later statement than the one that waited for the shard's head, so that nothing
-- committed while it waited is missed. A batch holds no two messages of one id and no two of one author in one room.
--
-- Rows out: status 'a'ppended, 'd'uplicate (version, position, at of the first), 'r'efused now, 'f': had been finally refused before.
CREATE FUNCTION post_messages(
    c_id uuid[], c_channel text[], c_author text[], c_shard smallint[], c_topic text[], c_state bytea[], c_digest bytea[],
    c_emote boolean[], c_following timestamptz[], c_subscriber boolean[],
    OUT command int, OUT status "char", OUT version bigint, OUT "position" bigint, OUT at timestamptz, OUT refusal text, OUT wait_s float8
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $post$
#variable_conflict use_column
DECLARE
    recorded timestamptz;
    skipped int[];
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT h.at FROM shard_heads h WHERE h.shard = ANY(c_shard) ORDER BY h.shard FOR UPDATE
    )
    SELECT max(locked.at) INTO recorded FROM locked;
    recorded := greatest(clock_timestamp(), recorded);

    skipped := ARRAY(
        SELECT c.ord FROM unnest(c_id) WITH ORDINALITY c(id, ord)
        WHERE EXISTS (SELECT FROM command_outcomes o WHERE o.command_id = c.id)
    );
    IF skipped <> '{}' THEN
        RETURN QUERY SELECT s.ord::int, CASE WHEN o.refusal IS NULL THEN 'd' ELSE 'f' END::"char", o.version, o.position,
                o.at, o.refusal, NULL::float8
            FROM unnest(skipped) s(ord) CROSS JOIN LATERAL outcomes_of(ARRAY[c_id[s.ord]]) o;
    END IF;

    RETURN QUERY WITH asked AS MATERIALIZED (
        SELECT c.ord, c.channel, c.author, c.shard, c.digest, b.channel_id IS NOT NULL AS banned, b.until,
            r.role IS NOT NULL AS trusted, m.slow_s, p.at AS last_at,
            CASE WHEN r.role IS NOT NULL THEN NULL
                WHEN m.subscribers_only AND NOT c.subscriber THEN 'subscribers_only'
                WHEN m.followers_only_min IS NOT NULL AND c.following IS NULL THEN 'followers_only'
                WHEN c.following + make_interval(mins => m.followers_only_min) > recorded THEN 'followers_only'
                WHEN m.emote_only AND NOT c.emote THEN 'emote_only'
                WHEN m."unique" AND p.digest = c.digest AND p.at + interval '600 s' > recorded THEN 'not_unique'
            END AS room,
            make_interval(secs => CASE WHEN r.role IS NULL THEN greatest(1, coalesce(m.slow_s, 0)) ELSE 1 END) AS cooldown,
            c.following + make_interval(mins => m.followers_only_min) AS followed_enough
        FROM unnest(c_channel, c_author, c_shard, c_digest, c_emote, c_following, c_subscriber)
            WITH ORDINALITY c(channel, author, shard, digest, emote, following, subscriber, ord)
        LEFT JOIN chat_bans b ON b.channel_id = c.channel AND b.account_id = c.author
        LEFT JOIN chat_modes m ON m.channel_id = c.channel
        LEFT JOIN channel_roles r ON r.channel_id = c.channel AND r.account_id = c.author
        LEFT JOIN chat_last_posts p ON p.channel_id = c.channel AND p.author_id = c.author
        WHERE c.ord <> ALL(skipped)
    ), judged AS MATERIALIZED (
        SELECT a.*,
            CASE WHEN a.banned AND a.until IS NULL THEN 'banned'
                WHEN a.banned AND recorded < a.until THEN 'timed_out'
                WHEN a.room IS NOT NULL THEN a.room
                WHEN recorded - a.last_at < a.cooldown THEN
                    CASE WHEN a.trusted OR coalesce(a.slow_s, 0) <= 1 THEN 'rate_limited' ELSE 'slow_mode' END
            END AS refusal
        FROM asked a
    ), admitted AS MATERIALIZED (
        SELECT j.ord, j.channel, j.author, j.shard, j.digest,
            coalesce(h.version, 0) + row_number() OVER (PARTITION BY j.channel ORDER BY j.ord) AS version,
            s.position + row_number() OVER (PARTITION BY j.shard ORDER BY j.ord) AS position
        FROM judged j JOIN shard_heads s ON s.shard = j.shard LEFT JOIN stream_heads h ON h.stream = 'chat-' || j.channel
        WHERE j.refusal IS NULL
    ), inserted AS (
        INSERT INTO events (category, shard, position, stream, version, topic, at, actor, command_id, state)
        SELECT 'chat', a.shard, a.position, 'chat-' || a.channel, a.version, c_topic[a.ord], recorded, a.author, c_id[a.ord], c_state[a.ord]
        FROM admitted a
    ), posts AS (
        INSERT INTO chat_last_posts (channel_id, author_id, at, digest) SELECT a.channel, a.author, recorded, a.digest FROM admitted a
        ON CONFLICT (channel_id, author_id) DO UPDATE SET at = excluded.at, digest = excluded.digest
    ), streams AS (
        INSERT INTO stream_heads (stream, version) SELECT 'chat-' || a.channel, max(a.version) FROM admitted a GROUP BY a.channel
        ON CONFLICT (stream) DO UPDATE SET version = excluded.version
    ), shards AS (
        UPDATE shard_heads s SET position = n.position, at = recorded
        FROM (SELECT a.shard, max(a.position) AS position FROM admitted a GROUP BY a.shard) n WHERE s.shard = n.shard
    ), answers AS (
        SELECT j.ord, j.refusal, a.version, a.position, j.shard, j.channel,
            CASE j.refusal WHEN 'timed_out' THEN extract(epoch FROM j.until - recorded)
                WHEN 'followers_only' THEN extract(epoch FROM j.followed_enough - recorded)
                WHEN 'not_unique' THEN extract(epoch FROM j.last_at + interval '600 s' - recorded)
                WHEN 'rate_limited' THEN extract(epoch FROM j.cooldown - (recorded - j.last_at))
                WHEN 'slow_mode' THEN extract(epoch FROM j.cooldown - (recorded - j.last_at))
            END::float8 AS wait_s
        FROM judged j LEFT JOIN admitted a ON a.ord = j.ord
    ), outcomes AS (
        INSERT INTO command_outcomes (command_id, write, at, money, shard, position, refusal)
        SELECT c_id[a.ord], 0, recorded, false, a.shard, a.position, a.refusal
        FROM answers a WHERE a.wait_s IS NULL
    )
    SELECT a.ord::int, CASE WHEN a.refusal IS NULL THEN 'a' ELSE 'r' END::"char", a.version, a.position, recorded, a.refusal, a.wait_s
    FROM answers a ORDER BY a.ord;
END
$post$;
