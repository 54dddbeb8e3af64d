"""The house around the engine: the supervisor and its workers, health, metrics, the admin API.

`channel` and `waiting` are the two files a worker imports; everything else runs in the supervisor.
"""
