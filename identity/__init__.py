"""Who is who: keys, signatures, certificates, and what is known of devices. Knows neither MQTT nor numbers."""
