"""Authenticated Received Chain (RFC 8617), for compatibility: chains read, judged and sealed."""
