-- Channels that only their subscribers may play: what the media nodes hold requests for media against.
CREATE TABLE channels_closed (channel_id text PRIMARY KEY);
