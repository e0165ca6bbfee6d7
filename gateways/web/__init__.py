"""The web pages: shells rendered from templates, and the scripts, style and vendored libraries they load. Mounted by the API role."""
