"""What a process of ours stands on, in whichever role: settings, failpoints, faults and marks, words fit for people."""
