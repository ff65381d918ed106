"""The description of the API: for tools as OpenAPI, and for people as the docs page."""
