"""Codings on many named fleets, beside float32 on the same seeds: `python -m benchmarks.fleets`.

`catalogue` names the fleets, `data` reads and cuts what they train on, `workers` runs them in processes, `runs` keeps
what has run, `curves` turns curves into a ratio of rounds, `report` writes the table.
"""
