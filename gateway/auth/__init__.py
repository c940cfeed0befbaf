"""Who is calling, and may they: credentials, principals, access levels. Knows headers and tokens, no HTTP server."""
