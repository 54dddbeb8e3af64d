"""DKIM keys: `Keys` leads each DKIMKey through its life, `Domains` makes and changes those of a MailDomain."""

from posthof_operator.dkim.domains import Domains
from posthof_operator.dkim.keys import Keys

__all__ = ["Domains", "Keys"]
