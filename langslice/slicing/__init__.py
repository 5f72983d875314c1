"""The main job: open, plan, write, verify; and what stands around it: inspect, demo, publish."""
