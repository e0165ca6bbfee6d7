"""The media plane: ingest, transcoder, packager, origin, archive.

Imports nothing of ours outside `media/`; speaks to the event plane through `media.port`, which `gateways/` fills.
"""
