"""The main job: open, plan, write, verify; and the jobs around it: inspect, demo, publish."""
