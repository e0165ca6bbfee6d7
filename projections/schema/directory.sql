CREATE TABLE channels (
    channel_id text PRIMARY KEY,
    name text NOT NULL,
    title text NOT NULL,
    category text NOT NULL
);
CREATE INDEX channels_category ON channels (category);

CREATE TABLE live (
    broadcast_id text PRIMARY KEY,
    channel_id text NOT NULL,
    started_at timestamptz NOT NULL,
    interrupted boolean NOT NULL
);
CREATE INDEX live_channel ON live (channel_id, started_at DESC);
