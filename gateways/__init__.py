"""Everything that faces the outside: HTTP API, chat, payment providers, web pages, the command line; and the wiring of it all."""
