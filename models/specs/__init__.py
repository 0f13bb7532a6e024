"""The tables of a job file, a struct each, and what has to hold between them; `models/job.py` puts them together."""
