CREATE TABLE entries (
    channel_id text NOT NULL,
    position bigint NOT NULL,
    at timestamptz NOT NULL,
    action text NOT NULL,
    moderator_id text,
    moderator text,
    target_id text,
    target text,
    message_id text,
    reason text,
    duration_s bigint,
    until timestamptz,
    mode jsonb,
    PRIMARY KEY (channel_id, position)
);
-- What was said about one person, in every channel: to be forgotten with them.
CREATE INDEX entries_target ON entries (target_id);
