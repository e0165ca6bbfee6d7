-- Refresh tokens by hash, in families: one that is used twice was stolen, and ends its whole family. Chat tickets: used once.
CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY,
    family uuid NOT NULL,
    account_id text NOT NULL,
    username text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX sessions_family ON sessions (family);
CREATE INDEX sessions_account ON sessions (account_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE chat_tickets (
    ticket_hash bytea PRIMARY KEY,
    account_id text NOT NULL,
    username text NOT NULL,
    expires_at timestamptz NOT NULL
);
