"""Names to addresses: DNS on the wire, its cache, and the MX rules that make a Route of a Destination."""
