"""What scenarios are told with: a cluster, its API, mail that is sent and mail that is found.

`place` is where it runs (the cluster of this repository, or any other), `api` speaks to it, `stage` is what a
scenario is given, `actors` are the pods that send and receive, `manifests` are the objects scenarios apply, `record`
is what is kept of a run. Nothing here knows how long something takes: everything waits for conditions.
"""
