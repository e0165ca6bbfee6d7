"""Fragmented MP4 (ISO/IEC 14496-12): boxes, a writer for what the origin serves, a reader for what FFmpeg makes. No I/O in here."""
