"""The texts of a new project, as `init` writes them. No code stands here."""
