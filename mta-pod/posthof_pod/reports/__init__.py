"""What the house tells other houses once a day, and what they tell us: DMARC aggregate reports, TLS reports.

Belongs here: the journal of what happened, whose turn it is to report, the reports as texts, both ways.
Must not be here: what is noted when (admit, deliver), and how mail leaves (flow).
"""
