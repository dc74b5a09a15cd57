"""FLOOR 4: PostgreSQL and all our SQL. The only package that knows the schema."""
