"""The whole product, started as its user starts it, with real encoders and browsers."""
