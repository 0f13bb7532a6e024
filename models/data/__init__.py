"""Where rows come from, and the arrays that a net trains on."""
