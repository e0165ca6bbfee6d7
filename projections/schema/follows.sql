CREATE TABLE follows (
    channel_id text NOT NULL,
    account_id text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (channel_id, account_id)
);
CREATE INDEX follows_account ON follows (account_id, since DESC);

CREATE TABLE counts (
    channel_id text PRIMARY KEY,
    followers bigint NOT NULL DEFAULT 0
);
