CREATE TABLE postings (
    shard int NOT NULL,
    position bigint NOT NULL,
    line int NOT NULL,
    stream text NOT NULL,
    version bigint NOT NULL,
    topic text NOT NULL,
    account text NOT NULL,
    currency text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    booked_at timestamptz NOT NULL,
    PRIMARY KEY (shard, position, line)
);
CREATE INDEX postings_account ON postings (account, currency, booked_at, shard, position, line);

CREATE TABLE balances (
    account text NOT NULL,
    currency text NOT NULL,
    debit_minor bigint NOT NULL DEFAULT 0,
    credit_minor bigint NOT NULL DEFAULT 0,
    postings bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account, currency)
);
