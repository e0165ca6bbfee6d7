CREATE TABLE segments (
    broadcast_id text NOT NULL,
    number bigint NOT NULL,
    channel_id text NOT NULL,
    starts_at timestamptz NOT NULL,
    offset_s double precision NOT NULL,
    duration_s double precision NOT NULL,
    PRIMARY KEY (broadcast_id, number)
);
CREATE INDEX segments_offset ON segments (broadcast_id, offset_s);
