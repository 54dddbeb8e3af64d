"""What a pod hears of its cluster: the configuration, the keys and the list of pods that the operator wrote for it.

`api` is the only file of the engine that speaks to the API server, and it only reads, by name. `objects` follows the
named objects; `mounted` reads the same ones from the pod's volumes; `editions` says which state is the newer one;
`source` puts a configuration together. Nothing here is on a message's path: with the API server away, mail flows on.
"""
