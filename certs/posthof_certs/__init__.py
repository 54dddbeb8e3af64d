"""Certificates, for the operator and for one machine: pairs and what can be wrong with them, making them, asking an
authority for them. Values and one client; who stores what, and where, is its callers' matter.

    pair     a chain and its key, judged         issue    keys, requests, certificates made here
    acme     an order at an ACME server          renewal  when a successor is made, and when not
    solvers  how names are proven to it
    zone     records put into a zone, and seen there    background  work that blocks for minutes
"""
