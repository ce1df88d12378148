"""What travels on the wire and into SQL. Imports nothing of ours."""
