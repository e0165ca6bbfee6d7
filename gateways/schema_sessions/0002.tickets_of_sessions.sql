-- The session a ticket came with (sessions.family): a socket it opened ends with that.
ALTER TABLE chat_tickets ADD COLUMN session uuid;
