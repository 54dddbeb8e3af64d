"""One message, in order: receive, judge, store, route, deliver, retry, report. Start reading at `flow.py`."""
