CREATE TABLE channels (
    channel_id text PRIMARY KEY,
    name text NOT NULL,
    owner_id text NOT NULL,
    title text NOT NULL,
    category text NOT NULL,
    tags jsonb NOT NULL DEFAULT '[]',
    chat_mode jsonb NOT NULL DEFAULT '{}',
    subscribers_only_playback boolean NOT NULL DEFAULT false,
    opened_at timestamptz NOT NULL
);
-- A name may pass from one channel to another once released: the latest one bears it.
CREATE INDEX channels_name ON channels (name text_pattern_ops, opened_at DESC);
CREATE INDEX channels_owner ON channels (owner_id);

CREATE TABLE moderators (
    channel_id text NOT NULL,
    account_id text NOT NULL,
    username text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (channel_id, account_id)
);
CREATE INDEX moderators_account ON moderators (account_id);
