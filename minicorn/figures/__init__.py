"""What is known of a server from outside: heartbeats, counters, and who shows them."""
