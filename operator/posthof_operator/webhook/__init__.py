"""The admission webhook: the API server asks whether an object may be, before it is. It is a process of its own
(server.py); its certificate is kept by the operator (keeper.py).

Belongs here: rules across objects, as an answer to whoever applies. Does not: the rules themselves (they are in
posthof_crds; conditions tell the same when the webhook is off), and anything that mail depends on.
"""
