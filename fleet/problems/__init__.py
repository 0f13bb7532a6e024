"""Jobs and data that come along, and how rows are dealt out to devices."""
