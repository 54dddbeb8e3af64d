"""SPF, DKIM, DMARC, ARC and what they make of a message (RFC 8601). Pure: the resolver is passed in.

Belongs here: everything the standards of sender authentication say about a message, as functions of values.
Must not be here: sockets, clocks, configuration, what a site does with a verdict (that is admit/auth.py).
"""
