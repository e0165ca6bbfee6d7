-- An erased person's stream keys are found by whose they are.
CREATE INDEX stream_keys_owner ON stream_keys (owner_id);
