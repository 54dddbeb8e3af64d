"""DomainKeys Identified Mail (RFC 6376, 8301, 8463): signatures read, judged and made.

`verify.verify` judges a message, `sign.Signer` makes fields, `keys` holds both halves of a key and its record.
"""
