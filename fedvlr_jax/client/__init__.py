"""What runs on one client's device, written for one client."""
