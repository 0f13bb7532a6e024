"""The page of a fleet: what people see in a browser, /metrics, and who may act there."""
