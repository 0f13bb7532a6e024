"""The server: a pure coordinator, strategies, a durable store and the service around them."""
