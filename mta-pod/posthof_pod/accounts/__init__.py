"""Who may submit mail (RFC 6409): accounts, how they prove who they are, what they may send.

Here: what checks a password or a token, who guesses too often, limits, the guard against a stolen password. Not here:
the AUTH command (smtp/server.py) and the mechanisms (smtp/sasl.py); where mail goes (admit/policy.py).
"""
