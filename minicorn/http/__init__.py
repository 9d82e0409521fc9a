"""HTTP/1.1 messages as values: bytes in, values out (RFC 9110, RFC 9112). No socket, no clock."""
