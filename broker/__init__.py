"""Words on the wire: topics, messages, the MQTT client, its in-memory twin and brokers for demo and tests. Knows no numbers."""
