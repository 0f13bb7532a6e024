"""Who is told when something happens that somebody should look at: a webhook, and the topic `notice`."""
