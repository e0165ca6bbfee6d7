"""The caching edge: Varnish before the media nodes' origins, and who watches through it. Run as the role `edge`; see docs/edge.md."""
