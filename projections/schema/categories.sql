CREATE TABLE categories (
    name text PRIMARY KEY
);

CREATE TABLE members (
    channel_id text PRIMARY KEY,
    category text NOT NULL
);
CREATE INDEX members_category ON members (category);
