-- One key a person, wrapped by the master key. An erased person keeps a row without a key, so that none is ever made again.
CREATE TABLE person_keys (
    person text PRIMARY KEY CHECK (length(person) <= 200),
    wrapped bytea,
    made_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);
