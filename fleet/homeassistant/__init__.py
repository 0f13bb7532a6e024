"""Devices as Home Assistant shows them: MQTT discovery, device-based. Off unless [homeassistant] names a prefix."""
