"""AWS: clients, errors, pace of calls, and the resources that we own."""
