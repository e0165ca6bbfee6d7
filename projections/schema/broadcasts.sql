CREATE TABLE broadcasts (
    broadcast_id text PRIMARY KEY,
    channel_id text NOT NULL,
    title text NOT NULL,
    category text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason text,
    vod_url text,
    duration_s double precision,
    unpublished boolean NOT NULL DEFAULT false,
    -- Kept apart from vod_url: a recording may be published after it was deleted, and stays deleted.
    deleted boolean NOT NULL DEFAULT false
);
CREATE INDEX broadcasts_deleted ON broadcasts (broadcast_id) WHERE deleted;
CREATE INDEX broadcasts_channel ON broadcasts (channel_id, started_at DESC, broadcast_id DESC);

CREATE INDEX broadcasts_unpublished ON broadcasts (broadcast_id) WHERE unpublished AND NOT deleted;
CREATE INDEX broadcasts_ended ON broadcasts (ended_at) WHERE NOT deleted;

CREATE TABLE descriptions (
    channel_id text NOT NULL,
    position bigint NOT NULL,
    at timestamptz NOT NULL,
    title text NOT NULL,
    category text NOT NULL,
    PRIMARY KEY (channel_id, position)
);
CREATE INDEX descriptions_at ON descriptions (channel_id, at);

CREATE TABLE renditions (
    broadcast_id text NOT NULL,
    name text NOT NULL,
    codecs text NOT NULL,
    width int NOT NULL,
    height int NOT NULL,
    frame_rate double precision NOT NULL,
    bandwidth bigint NOT NULL,
    PRIMARY KEY (broadcast_id, name)
);

CREATE TABLE clips (
    clip_id text PRIMARY KEY,
    broadcast_id text NOT NULL,
    channel_id text NOT NULL,
    created_by text NOT NULL,
    title text NOT NULL,
    start_s double precision NOT NULL,
    end_s double precision NOT NULL,
    created_at timestamptz NOT NULL,
    deleted boolean NOT NULL DEFAULT false
);
CREATE INDEX clips_deleted ON clips (clip_id) WHERE deleted;
CREATE INDEX clips_broadcast ON clips (broadcast_id, created_at DESC);
CREATE INDEX clips_channel ON clips (channel_id, created_at DESC);
