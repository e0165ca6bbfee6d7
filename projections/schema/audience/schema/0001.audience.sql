-- How many watch and have watched. Not made from events, so no rebuild touches it: `current_viewers` may be lost, `broadcasts` is kept.
CREATE SCHEMA audience;

-- Viewers of a channel in the last window; a row whose window is long over says nothing any more.
CREATE TABLE audience.current_viewers (
    channel_id text PRIMARY KEY,
    viewers int NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 70);

-- A broadcast's most viewers in one window, and all distinct viewers, whose sketch goes on growing while it lasts.
CREATE TABLE audience.broadcasts (
    broadcast_id text PRIMARY KEY,
    channel_id text NOT NULL,
    peak_viewers int NOT NULL,
    total_views bigint NOT NULL,
    sketch bytea NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX broadcasts_channel ON audience.broadcasts (channel_id);
