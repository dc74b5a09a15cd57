"""FLOOR 4: files before they are sent: their names, what they really are, whether the other side takes them. Sends and stores nothing."""
