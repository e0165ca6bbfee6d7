"""The HTTP API (design §9): FastAPI routes by subject over commands and read models, every error a problem+json."""
