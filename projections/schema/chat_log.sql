CREATE TABLE messages (
    channel_id text NOT NULL,
    position bigint NOT NULL,
    message_id text NOT NULL,
    author_id text NOT NULL,
    username text NOT NULL,
    text text NOT NULL,
    badges jsonb NOT NULL,
    reply_to text,
    at timestamptz NOT NULL,
    PRIMARY KEY (channel_id, position)
);
-- Replay by time; history of one person; a message by its id (the moderation log).
CREATE INDEX messages_at ON messages (channel_id, at);
CREATE INDEX messages_author ON messages (author_id, channel_id, position DESC);
CREATE INDEX messages_id ON messages (message_id);

CREATE TABLE deleted (
    channel_id text NOT NULL,
    message_id text NOT NULL,
    PRIMARY KEY (channel_id, message_id)
);

CREATE TABLE silenced (
    channel_id text NOT NULL,
    account_id text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (channel_id, account_id)
);

CREATE TABLE cleared (
    channel_id text PRIMARY KEY,
    position bigint NOT NULL
);
