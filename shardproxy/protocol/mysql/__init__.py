"""The MySQL client/server protocol, sans I/O.

Modules, bottom up: constants (numbers), packets (integers, strings, OK, ERR, EOF), framing (payloads in a byte
stream), handshake (messages of the connection phase), auth (passwords, both sides of authentication), columns, text
and binary (results and parameters), commands (requests).

Rule of the package: whatever a peer sends, a parser either returns a message or raises RemoteProtocolError, and holds
no more memory than the bytes that it was given.
"""
