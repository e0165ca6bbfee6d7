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
CREATE INDEX entries_target ON entries (channel_id, target_id, position DESC);
