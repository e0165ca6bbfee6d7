"""RTMP ingest: Sans-IO layers (handshake, chunk, amf0, session) and an asyncio shell around them (server)."""
