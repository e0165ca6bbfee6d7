CREATE TABLE subscriptions (
    channel_id text NOT NULL,
    account_id text NOT NULL,
    subscription_id text NOT NULL,
    username text NOT NULL,
    tier int NOT NULL,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    cancelled boolean NOT NULL,
    gift boolean NOT NULL,
    gifted_by text,
    PRIMARY KEY (channel_id, account_id)
);
CREATE INDEX subscriptions_account ON subscriptions (account_id);
CREATE INDEX subscriptions_id ON subscriptions (subscription_id);
CREATE INDEX subscriptions_channel ON subscriptions (channel_id, expires_at);
