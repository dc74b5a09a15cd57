"""FLOOR 3: what is declared: flow files, mappings and named functions. Reads files; never the network or the database."""
