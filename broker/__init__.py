"""Words on the wire: topics, messages, the MQTT client, its in-memory twin, and brokers. Knows no numbers."""
