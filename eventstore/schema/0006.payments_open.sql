-- Payments that were asked for and of which nothing is known yet: what reconciliation goes through.
CREATE TABLE payments_open (
    payment_id text PRIMARY KEY, channel_id text NOT NULL, account_id text NOT NULL, requested_at timestamptz NOT NULL
);
CREATE INDEX payments_open_since ON payments_open (requested_at, payment_id);
