"""The last step before the wire: DKIM and ARC fields, and the envelope sender that a recipient's system will see."""
