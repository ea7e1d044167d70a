"""Around training: checkpoints, journal, trackers. Knows files and states, no pictures and no models."""
