"""The device: a pure participant, data sources, the outbox, the model slot and the service around them."""
