CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    username text NOT NULL,
    display_name text NOT NULL,
    registered_at timestamptz NOT NULL,
    erased_at timestamptz
);
CREATE INDEX accounts_username ON accounts (username);
CREATE INDEX accounts_erased ON accounts (account_id) WHERE erased_at IS NOT NULL;
