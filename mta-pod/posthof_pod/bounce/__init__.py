"""Reports to senders: who is told (`who`), in which words (`notice`), in which form (`report`).

Pure: values in, values out. Reads no volume, opens no socket, asks no clock.
"""
