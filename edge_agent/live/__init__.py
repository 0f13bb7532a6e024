"""A live source: topics of the site's own broker, joined into rows and kept in a ring on the device's disk."""
