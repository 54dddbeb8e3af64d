"""TLSCert: pairs are made, checked, copied or ordered here, and what is served is told. One story: `reconcile`.

Belongs here: everything about a certificate's life. Does not: how a pod loads a pair, which listeners serve it.
"""
