"""What goes next, and when: the backlog, the retry curve, the concurrency of a site.

Pure: no asyncio, socket, clock or randomness. `now` (unix seconds) and random values are parameters.
"""
