-- Rows that decisions read: written only with the event that changes them (eventstore/index.py).
CREATE TABLE stream_keys (key_hash text PRIMARY KEY, channel_id text NOT NULL, channel text NOT NULL, owner_id text NOT NULL);
CREATE TABLE credentials (username text PRIMARY KEY, account_id text NOT NULL, password_hash text NOT NULL);
CREATE TABLE account_roles (account_id text, role text, PRIMARY KEY (account_id, role));
CREATE TABLE channel_roles (
    channel_id text, account_id text, role text NOT NULL, username text NOT NULL, PRIMARY KEY (channel_id, account_id)
);
CREATE TABLE chat_bans (channel_id text, account_id text, until timestamptz, PRIMARY KEY (channel_id, account_id));
CREATE TABLE chat_modes (
    channel_id text PRIMARY KEY,
    slow_s int NOT NULL,
    followers_only_min int,
    subscribers_only boolean NOT NULL,
    emote_only boolean NOT NULL,
    "unique" boolean NOT NULL
);
CREATE TABLE names (
    name text, use text, account_id text NOT NULL, subject_id text NOT NULL, PRIMARY KEY (name, use)
);
-- The author's last admitted message, written by admission itself.
CREATE TABLE chat_last_posts (
    channel_id text, author_id text, at timestamptz NOT NULL, digest bytea NOT NULL, PRIMARY KEY (channel_id, author_id)
) WITH (fillfactor = 70);

-- Applies one command's rows: [{table, key: {column: value}, values: {column: value} | null}].
CREATE FUNCTION write_index(rows jsonb) RETURNS void LANGUAGE plpgsql AS $write$
DECLARE
    row jsonb;
    matches text;
    sets text;
BEGIN
    FOR row IN SELECT * FROM jsonb_array_elements(rows) LOOP
        SELECT string_agg(format('t.%1$I = r.%1$I', k), ' AND ') INTO matches FROM jsonb_object_keys(row -> 'key') k;
        IF jsonb_typeof(row -> 'values') = 'null' THEN
            EXECUTE format('DELETE FROM %1$I t USING jsonb_populate_record(NULL::%1$I, $1) r WHERE %2$s', row ->> 'table', matches)
                USING row -> 'key';
        ELSE
            SELECT string_agg(format('%1$I = excluded.%1$I', k), ', ') INTO sets FROM jsonb_object_keys(row -> 'values') k;
            EXECUTE format('INSERT INTO %1$I SELECT (jsonb_populate_record(NULL::%1$I, $1)).* ON CONFLICT (%2$s) DO %3$s',
                row ->> 'table', (SELECT string_agg(quote_ident(k), ', ') FROM jsonb_object_keys(row -> 'key') k),
                coalesce('UPDATE SET ' || sets, 'NOTHING')) USING (row -> 'key') || (row -> 'values');
        END IF;
    END LOOP;
END
$write$;
