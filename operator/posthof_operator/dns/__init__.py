"""What the world's DNS says of a MailDomain, compared with what it should say. One story: `reconcile`.

Belongs here: MX, SPF, DMARC and the proof of a domain, as the operator sees them. Does not: anything on a message's
path; pods resolve for themselves.
"""
