CREATE TABLE bans (
    channel_id text NOT NULL,
    account_id text NOT NULL,
    position bigint NOT NULL,
    username text NOT NULL,
    moderator text NOT NULL,
    reason text,
    at timestamptz NOT NULL,
    until timestamptz,
    PRIMARY KEY (channel_id, account_id)
);
CREATE INDEX bans_newest ON bans (channel_id, position DESC);
